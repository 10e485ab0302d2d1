from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from distvae.config import Config, Eval, IdxData, SpeechData
from distvae.refusal import Refusal
from distvae.tasks.references import judge_reference, pca


def test_the_identity_is_perfect(speech_config: Config) -> None:
    summary = judge_reference("identity", speech_config).summary
    assert summary["isd"] == 0
    assert summary["stoi"] == pytest.approx(1, abs=1e-6)
    assert summary["si_sdr"] > 100


def test_principal_components_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    power = np.exp(random.normal(size=(500, 3)) @ random.normal(size=(3, 12)) + random.normal(size=(500, 12)))
    power = power.astype(np.float32)
    oracle = PCA(4).fit(np.log(power))
    coded = pca(power, 4)(torch.from_numpy(power), 0)
    assert coded.code is not None
    expected = oracle.transform(np.log(power))
    np.testing.assert_allclose(np.abs(coded.code.numpy()), np.abs(expected), atol=1e-3)
    np.testing.assert_allclose(coded.power.numpy(), np.exp(oracle.inverse_transform(expected)), rtol=1e-3)


def test_more_components_are_never_worse(speech_config: Config) -> None:
    few, many = (judge_reference(name, speech_config).summary for name in ("pca-4", "pca-64"))
    assert few["si_sdr"] < many["si_sdr"]
    assert few["stoi"] < many["stoi"]


@pytest.mark.parametrize("name", ["pca", "pca-0", "pca-258", "nmf-3"])
def test_an_unknown_reference_is_refused(speech_config: Config, name: str) -> None:
    with pytest.raises(Refusal, match="pca-1 to pca-257 expected"):
        judge_reference(name, speech_config)


def test_images_have_no_reference() -> None:
    with pytest.raises(Refusal, match=r"data\.kind 'speech' expected"):
        judge_reference("identity", Config(data=IdxData()))


@pytest.mark.slow
def test_references_score_on_real_speech_as_measured_before(real_data: Path) -> None:
    config = Config(data=SpeechData(path=str(real_data / "speech")), eval=Eval(metrics=("stoi", "estoi", "isd")))
    summary = judge_reference("pca-32", config).summary
    assert summary["stoi"] == pytest.approx(0.913, abs=1e-3)
    assert summary["estoi"] == pytest.approx(0.860, abs=1e-3)
    assert (summary["isd"], summary["hoyer"]) == pytest.approx((1.30, 0.56), abs=0.01)
