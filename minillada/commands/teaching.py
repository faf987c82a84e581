"""Commands for a course: grade and editions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ..course import editions as course_editions
from ..course import grading, keeping
from ..course.pages import notebook_of
from ..files import check_writable
from .common import argument, check_range, check_seed, escaped, option


def grade(
    folder: Annotated[Path, argument("Notebooks of students: FOLDER/ann.ipynb, or FOLDER/ann/….")],
    notebook: Annotated[str, option("Number of the notebook that was handed out: 05.")],
    csv: Annotated[Path, option("Where the grades go: one row a student.")],
    feedback: Annotated[Path | None, option("Folder for one text file a student.")] = None,
    seed: Annotated[
        int | None,
        option("Chooses the hidden inputs; drawn by lot if you give none.", callback=check_seed),
    ] = None,
    seconds: Annotated[float, option("Time limit of an exercise.")] = 5.0,
    memory: Annotated[int, option("Memory limit of a submission in MB.")] = 1000,
    jobs: Annotated[int, option("Submissions that are graded at once.")] = 2,
) -> None:
    """Grade the exercises of one notebook in a folder of submissions, with hidden inputs.

    Every submission runs in a process of its own with limits. That is no sandbox: docs/TEACHING.md,
    section Grading, shows how to grade in a container.
    """
    check_range("seconds", seconds, 1, 3600)
    check_range("memory", memory, 100, 10**6)
    check_range("jobs", jobs, 1, 1000)
    grading.check_places(folder, csv, feedback)
    check_writable(csv, "choose another place with --csv")
    limits = grading.Limits(seconds, memory * 1_000_000)
    path = notebook_of(notebook)
    with keeping.Kept(csv) as kept:
        chosen = kept.seed if seed is None else seed
        page = grading.Page.read(path, chosen)
        found = grading.submissions(folder, page, path.stem.split("_")[0])
        if feedback:
            for name in grading.feedback_files([one.student for one in found]):
                check_writable(feedback / name, "choose another place with --feedback")
        kept.begin(found, page, limits, chosen)
        print(f"the same inputs once more: --seed {chosen}", flush=True)
        grades = grading.grade_all(found, page, limits, jobs, kept.known, kept.add)
        grading.save_csv(grades, page, csv)
        if feedback:
            grading.save_feedback(grades, page, feedback)
    most = len(page.exercises)
    print(f"{grading.summary(grades, found, most)}; {csv}")
    if left := grading.without_notebook(folder):
        print(f"no notebook in, so not graded: {', '.join(map(escaped, left))}")
    # Where a note stands beside a lost point, the answer may be right all the same.
    doubts = {one.student for one in grades if one.notes and one.points < most}
    doubts |= {one.student for one in found if one.problem}
    if doubts:
        print(f"look at these yourself, {csv} says why: {', '.join(map(escaped, sorted(doubts)))}")


def editions(
    out: Annotated[Path, option("Folder for student/, instructor/ and nbgrader/.")],
    seed: Annotated[
        int, option("Chooses the hidden inputs of the nbgrader source.", callback=check_seed)
    ] = 1,
    github: Annotated[
        str | None, option("OWNER/NAME of your copy: badges of Colab and Kaggle for students.")
    ] = None,
) -> None:
    """Make the editions of all notebooks: for students, for instructors, for nbgrader."""
    for name in ("student", "instructor", "nbgrader/source/00"):
        check_writable(out / name / "00.ipynb", "choose another folder with --out")
    names = course_editions.make(out, seed, repository=github)
    print(f"{len(names)} notebooks in {out / 'student'}, {out / 'instructor'} and, where they have")
    print(f"exercises with a check, {out / 'nbgrader' / 'source'}")
