"""Methods for speech: scikit-learn is the oracle, and what must hold whatever is heard."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from distvae.config import Config, Eval, IdxData, SpeechData
from distvae.files.refusal import Refusal
from distvae.tasks.baselines import nmf, pca, score_baseline


def test_the_identity_is_perfect(speech_config: Config) -> None:
    summary = score_baseline("identity", speech_config)
    assert summary["isd"] == 0
    assert summary["stoi"] == pytest.approx(1, abs=1e-6)
    assert summary["si_sdr"] > 100


def test_principal_components_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    power = np.exp(
        random.normal(size=(500, 3)) @ random.normal(size=(3, 12)) + random.normal(size=(500, 12))
    )
    power = power.astype(np.float32)
    oracle = PCA(4).fit(np.log(power))
    coded = pca(power, 4)(torch.from_numpy(power), 0)
    assert coded.code is not None
    expected = oracle.transform(np.log(power))
    np.testing.assert_allclose(np.abs(coded.code.numpy()), np.abs(expected), atol=1e-3)
    np.testing.assert_allclose(
        coded.power.numpy(), np.exp(oracle.inverse_transform(expected)), rtol=1e-3
    )


def spectra(frames: int = 300) -> np.ndarray:
    """Power of sums of a few non-negative parts, and some silence."""
    random = np.random.default_rng(0)
    magnitude = random.exponential(size=(frames, 3)) @ random.exponential(size=(3, 12))
    magnitude[:5] = 0
    return np.square(magnitude).astype(np.float32)


def test_few_parts_are_found_and_are_non_negative() -> None:
    power = spectra()
    coded = nmf(power, 3)(torch.from_numpy(power), 0)
    assert coded.code is not None
    assert coded.code.shape == (300, 3)
    assert (coded.code >= 0).all()
    np.testing.assert_allclose(
        coded.power.sqrt().numpy(), np.sqrt(power), atol=0.05 * np.sqrt(power).max()
    )


@pytest.mark.parametrize("name", ["pca-0", "nmf-258", "nlm"])
def test_an_unknown_name_is_refused(speech_config: Config, name: str) -> None:
    with pytest.raises(Refusal, match="identity, pca-1 to pca-257 or nmf-1 to nmf-257 expected"):
        score_baseline(name, speech_config)


def test_images_are_compared_with_nothing() -> None:
    with pytest.raises(Refusal, match="speech or patches expected"):
        score_baseline("identity", Config(data=IdxData()))


@pytest.mark.slow
def test_components_score_on_real_speech_as_measured_before(real_data: Path) -> None:
    config = Config(
        data=SpeechData(path=str(real_data / "speech")), eval=Eval(metrics=("stoi", "estoi", "isd"))
    )
    summary = score_baseline("pca-32", config)
    assert summary["stoi"] == pytest.approx(0.913, abs=1e-3)
    assert summary["estoi"] == pytest.approx(0.860, abs=1e-3)
    assert (summary["isd"], summary["hoyer"]) == pytest.approx((1.30, 0.56), abs=0.01)
