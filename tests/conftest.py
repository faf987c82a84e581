"""What all tests share: one thread, fixed seeds, no progress bars, no windows.

Several workers take the longest files first. At the end, a table says how long each notebook took.
"""

import os
import random
import shutil
from collections import defaultdict
from itertools import chain

import pytest

import minillada  # noqa: F401  # before torch: it says how long OpenMP's threads wait

os.environ["TQDM_DISABLE"] = "1"  # inherited by notebook kernels and by commands that tests start
if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # several workers with several threads each would only wait for one another
    os.environ["OMP_NUM_THREADS"] = "1"
# glibc returns large blocks to the system, so each large tensor needs new, cleared pages. If blocks
# are kept, drawing takes a seventh less time, and the judge half. Kernels and the workers of xdist
# inherit the two variables; other systems do not know them.
os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**40))
# The variable MPLBACKEND is left alone on purpose: kernels would inherit it and show no figures.
import matplotlib  # noqa: E402
import torch  # noqa: E402

matplotlib.use("Agg")
torch.set_num_threads(
    1
)  # tiny models: threads cost more than they bring, and one thread adds in a fixed order


# The files that take longest, the longest first. If one of them began last, one worker would wait
# for the other; the order of all other files does not matter.
LONGEST = [
    "07_training", "12_evaluation", "10_thinking_and_stages", "15_from_autoregression_to_diffusion",
    "11_painter", "08_sampling", "20_preferences", "18_colour", "04_masked_diffusion",
    "02_image_tokenizer", "test_distributed", "test_grading", "09_every_task", "test_devices",
    "test_golden", "17_data_and_sharded_parallelism", "16_block_size_law",
    "06_block_diffusion", "13_faster_decoding", "test_train", "test_sampler", "test_lab",
    "test_site", "test_slides",
]  # fmt: skip


def pytest_configure(config):
    """Let xdist take the files in our order; its own begins with those of the most tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Put the longest files first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Every test starts from the same random state, in whatever order tests run."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by Playwright. A module long: its event loop would disturb other tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("there is no Chromium to look at the pages with")
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()


def pytest_terminal_summary(terminalreporter):
    """Print above pytest's closing line how long each notebook took, kernel start included."""
    seconds: dict[str, float] = defaultdict(float)
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if ".ipynb::" in getattr(report, "nodeid", ""):
            seconds[report.nodeid.split("::")[0]] += report.duration
    if seconds:
        terminalreporter.section("seconds per notebook")
        for notebook in sorted(seconds):
            terminalreporter.line(f"{seconds[notebook]:6.1f}  {notebook}")
