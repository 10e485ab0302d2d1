"""Methods for speech: scikit-learn is the oracle, and what must hold whatever is heard."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import kl_div
from sklearn.decomposition import PCA

from distvae.config import Config, Eval, IdxData, SpeechData
from distvae.files.refusal import Refusal
from distvae.tasks.baselines import score_baseline
from distvae.tasks.baselines.speech import nmf, pca


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


def test_no_rescaled_part_diverges_less() -> None:
    """At a minimum over a non-negative factor, scaling any part of a frame's magnitude lowers
    nothing.
    """
    power = spectra()
    coded = nmf(power, 2)(torch.from_numpy(power), 0)
    seen, found = np.sqrt(power)[5:], coded.power.sqrt().numpy()[5:]

    def divergence(scale: float) -> np.ndarray:
        return np.asarray(kl_div(seen, scale * found).sum(1))

    for scale in (0.97, 1.03):
        assert (divergence(scale) >= divergence(1) - 1e-3).all()


def test_a_frame_is_coded_alike_whatever_is_coded_with_it() -> None:
    power = torch.from_numpy(spectra())
    code = nmf(power.numpy(), 3)
    np.testing.assert_allclose(
        code(power[50:60], 50).power, code(power, 0).power[50:60], rtol=0.02, atol=0.02
    )


def test_components_are_active_to_a_degree_and_never_dead(speech_config: Config) -> None:
    for name in ("pca-4", "nmf-4"):
        summary = score_baseline(name, speech_config)
        assert 1 <= summary["effective_atoms"] <= 4
        assert 0 <= summary["hoyer"] <= 1
        assert not {"live_atoms", "dead_atoms"} & set(summary)


def test_more_components_are_never_worse(speech_config: Config) -> None:
    few, many = (score_baseline(name, speech_config) for name in ("pca-4", "pca-64"))
    assert few["si_sdr"] < many["si_sdr"]
    assert few["stoi"] < many["stoi"]


@pytest.mark.parametrize("name", ["pca", "pca-0", "nmf-258", "ica-3", "nlm"])
def test_an_unknown_name_is_refused(speech_config: Config, name: str) -> None:
    with pytest.raises(Refusal, match="identity, pca-1 to pca-257 or nmf-1 to nmf-257 expected"):
        score_baseline(name, speech_config)


def test_more_factors_than_frames_are_refused() -> None:
    power = np.random.default_rng(0).uniform(1, 2, (5, 8)).astype(np.float32)
    with pytest.raises(Refusal, match="nmf-6: more factors than the 5 training frames"):
        nmf(power, 6)


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
