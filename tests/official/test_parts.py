"""Parts that do not belong to the checkpoint's ids are refused when they are read."""

import importlib.util
import json
import shutil

import pytest
import torch

from minillada.official.painter import SigVQ
from minillada.official.parts import Parts


def test_parts_of_another_codebook_are_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    (folder / "SHA256SUMS").unlink()
    parts = Parts(folder, torch.device("cpu"), torch.float32, False)
    if importlib.util.find_spec("diffusers"):
        path = folder / "image_tokenizer" / "sigvq_embedding.pt"
        torch.save(SigVQ(40, 32).state_dict(), path)
        with pytest.raises(ValueError, match="embedding has 40 image codes, and .* ids for 64"):
            parts.painter("turbo")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"image_token_offset": 511}))
    with pytest.raises(ValueError, match="image tokenizer has 64 image codes, and .* ids for 65"):
        parts.tokenizer()
    assert not parts.kept
