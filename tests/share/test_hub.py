"""Models on the Hugging Face hub, played by a server of this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import distvae
from distvae.files.refusal import Refusal
from distvae.share.pushed import load_into, push
from tests.share.hub_server import Hub, serving
from tests.share.test_pushed import codes, contents

HUB = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
CONSTANTS = pytest.importorskip("huggingface_hub.constants")

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>'")  # its own use of httpx


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return an empty hub, with caches of its own."""
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        template = CONSTANTS.HUGGINGFACE_CO_URL_TEMPLATE.replace(CONSTANTS.ENDPOINT, server.address)
        monkeypatch.setattr(CONSTANTS, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(CONSTANTS, "ENDPOINT", server.address)  # read once from HF_ENDPOINT
        monkeypatch.setattr(CONSTANTS, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(CONSTANTS, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_token")
        yield server


def test_a_repository_holds_the_files_of_a_pushed_folder(
    run: Path, hub: Hub, tmp_path: Path
) -> None:
    assert distvae.push(run, "hf://someone/model") == "hf://someone/model"
    assert hub.private == {"someone/model"}
    assert hub.commits == 1
    push(run, str(tmp_path / "pushed"))
    files = hub.repositories["someone/model"]
    assert list(hub.large.values()) == [files["model.safetensors"]]
    assert {**contents(tmp_path / "pushed"), ".gitattributes": b""} == files
    card = HUB.ModelCard(files["README.md"].decode())
    figures = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert figures == {"pesq_wb": 2.5, "pesq_wb_std": 0.25, "hoyer": 0.5}
    load_into("hf://someone/model", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(tmp_path / "pushed")
    assert codes("hf://someone/model") == codes(run)


def test_a_model_is_replaced_by_force_alone_and_other_files_stay(run: Path, hub: Hub) -> None:
    push(run, "hf://someone/model")
    files = hub.repositories["someone/model"]
    files["picture.png"] = b"kept"
    (run / "evaluation" / "test" / "summary.json").unlink()
    with pytest.raises(Refusal, match=r"model: exists; .*--force"):
        push(run, "hf://someone/model")
    push(run, "hf://someone/model", force=True)
    assert files["picture.png"] == b"kept"
    assert "evaluation/test/summary.json" not in files


def test_a_repository_that_was_altered_or_holds_no_model_is_refused(
    run: Path, hub: Hub, tmp_path: Path
) -> None:
    push(run, "hf://someone/model")
    hub.repositories["someone/model"]["run.json"] += b" "
    with pytest.raises(Refusal, match=r"hf://someone/model/run\.json: altered or damaged"):
        distvae.load("hf://someone/model")
    with pytest.raises(Refusal, match="hf://someone/other/SHA256SUMS: "):
        distvae.load("hf://someone/other")
    with pytest.raises(Refusal, match="hf://OWNER/NAME, or"):
        distvae.load("hf://someone")
