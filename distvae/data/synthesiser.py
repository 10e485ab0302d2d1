"""Synthetic speech of several speakers: a pulse train and noise through moving formants."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from distvae.data import folders
from distvae.data.dataset import Array
from distvae.files.program import refuse_missing
from distvae.numerics.arrays import Doubles

RATE = 16000
SPEAKERS, UTTERANCES = 12, 5
FORMAT = 1  # of the built-in recordings; a change makes them anew
STEP = 80  # samples between controls: 5 ms


class Phone(NamedTuple):
    """A sound: its resonances, how strongly voice and noise excite it, and how long it lasts."""

    formants: tuple[float, float, float]
    voice: float
    noise: float
    place: float
    """Centre of the noise in Hz."""
    seconds: float


VOWELS = [
    Phone((730, 1090, 2440), 1.0, 0.0, 3000, 0.16),
    Phone((270, 2290, 3010), 0.8, 0.0, 3000, 0.14),
    Phone((300, 870, 2240), 0.8, 0.0, 3000, 0.14),
    Phone((530, 1840, 2480), 1.0, 0.0, 3000, 0.13),
    Phone((570, 840, 2410), 1.0, 0.0, 3000, 0.15),
    Phone((660, 1720, 2410), 1.0, 0.0, 3000, 0.17),
    Phone((490, 1350, 1690), 0.9, 0.0, 3000, 0.12),
]
CONSONANTS = [
    Phone((320, 1700, 2600), 0.0, 1.0, 5500, 0.11),  # s
    Phone((320, 1800, 2500), 0.0, 1.2, 3200, 0.11),  # sh
    Phone((340, 1100, 2100), 0.0, 0.3, 4500, 0.09),  # f
    Phone((320, 1700, 2600), 0.3, 0.5, 5000, 0.08),  # z
    Phone((280, 1000, 2200), 0.4, 0.0, 3000, 0.08),  # m
    Phone((280, 1600, 2600), 0.4, 0.0, 3000, 0.07),  # n
    Phone((360, 1300, 2700), 0.5, 0.0, 3000, 0.07),  # l
    Phone((290, 650, 2150), 0.5, 0.0, 3000, 0.07),  # w
    Phone((500, 1500, 2500), 0.0, 0.0, 4000, 0.06),  # the closure of a stop
]
PAUSE = Phone((500, 1500, 2500), 0.0, 0.0, 3000, 0.15)


class Voice(NamedTuple):
    """The properties of a speaker."""

    pitch: float
    """Hz."""
    tract: float
    """Factor on the formants: above one for a shorter vocal tract."""
    breath: float
    """Strength of its noise."""
    pace: float
    """Factor on durations."""


def folder() -> Path:
    """Return the folder of built-in recordings, one folder per speaker, written on first use."""
    refuse_missing("the built-in speech", "scipy")
    folders.build_once(place(), _write_corpus)
    return place()


def place() -> Path:
    """Return where that folder is, or will be."""
    return folders.cache_folder() / f"synthetic-speech-{FORMAT}"


def utterance(speaker: int, number: int) -> Array:
    """Return a few seconds of speech at 16 kHz, a function of the two numbers alone."""
    random = np.random.default_rng([speaker, number])
    voice = _voice(speaker)
    tracks = _tracks(_phones(random), voice, random)
    speech = _voiced(tracks, voice, random) + _fricated(tracks, random)
    speech *= random.uniform(0.4, 0.9) / np.abs(speech).max()
    floor = 2e-4 * random.standard_normal(len(speech))  # of a room: recordings have no exact zeros
    return np.asarray(speech + floor, np.float32)


def _write_corpus(part: Path) -> None:
    import soundfile

    for speaker in range(SPEAKERS):
        home = part / f"speaker{speaker:02d}"
        home.mkdir()
        for number in range(UTTERANCES):
            soundfile.write(
                home / f"utterance{number}.flac", utterance(speaker, number), RATE, subtype="PCM_16"
            )


def _voice(speaker: int) -> Voice:
    """Return the voice of a speaker. Low and high voices alternate."""
    random = np.random.default_rng([speaker])
    low, high, tract = ((90, 140, 1.0), (165, 240, 1.15))[speaker % 2]
    return Voice(
        pitch=random.uniform(low, high),
        tract=tract * random.uniform(0.94, 1.06),
        breath=random.uniform(2, 8),
        pace=random.uniform(0.85, 1.2),
    )


def _phones(random: np.random.Generator) -> list[Phone]:
    """Yield words between pauses, each of one to three syllables of consonant and vowel."""
    phones = [PAUSE, PAUSE]
    for _ in range(random.integers(3, 6)):
        for _ in range(random.integers(1, 4)):
            phones += [
                CONSONANTS[random.integers(len(CONSONANTS))],
                VOWELS[random.integers(len(VOWELS))],
            ]
        phones.append(PAUSE)
    return [*phones, PAUSE]


def _tracks(phones: list[Phone], voice: Voice, random: np.random.Generator) -> Doubles:
    """Return (steps, 6): three formants, strength of voice and noise, and place of the noise,
    gliding from phone to phone.
    """
    steps = [round(p.seconds * voice.pace * random.uniform(0.8, 1.3) * RATE / STEP) for p in phones]
    rows = np.repeat(
        [[*np.multiply(p.formants, voice.tract), p.voice, p.noise, p.place] for p in phones],
        steps,
        axis=0,
    )
    window = np.hanning(11)[1:-1] / np.hanning(11).sum()
    padded = np.pad(rows, ((4, 4), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, window, mode="valid") for column in padded.T], axis=1)


def _voiced(tracks: Doubles, voice: Voice, random: np.random.Generator) -> Doubles:
    """Return a band-limited pulse train with falling pitch, and breath, through five formants."""
    from scipy.signal import lfilter

    steps = len(tracks)
    wander = np.convolve(
        random.standard_normal(steps + 40), np.hanning(41) / np.hanning(41).sum(), mode="valid"
    )
    pitch = voice.pitch * (1 + 0.2 * wander[:steps]) * np.linspace(1.1, 0.85, steps)
    half = np.pi * np.cumsum(_sampled(pitch)) / RATE
    harmonics = int(RATE / 2 / pitch.max())
    # Dirichlet's kernel is the sum of all harmonics.
    pulses = np.sin((2 * harmonics + 1) * half) / np.sin(half) - 1
    source = lfilter([1.0], [1.0, -0.9], pulses) + voice.breath * random.standard_normal(len(half))
    upper = np.tile(np.multiply((3500.0, 4500.0), voice.tract), (steps, 1))
    widths = np.array([70.0, 100.0, 140.0, 220.0, 280.0])
    return _resonated(
        source * _sampled(tracks[:, 3]), np.concatenate([tracks[:, :3], upper], axis=1), widths
    )


def _fricated(tracks: Doubles, random: np.random.Generator) -> Doubles:
    """Return noise through one broad resonance."""
    noise = random.standard_normal(len(tracks) * STEP) * _sampled(tracks[:, 4])
    return 3 * _resonated(noise, tracks[:, 5:], np.array([1500.0]))


def _sampled(track: Doubles) -> Doubles:
    """Interpolate one value per step to one per sample."""
    return np.interp(np.arange(len(track) * STEP) / STEP, np.arange(len(track)), track)


def _resonated(source: Doubles, centres: Doubles, widths: Doubles) -> Doubles:
    """Return a signal through a cascade of resonators with moving centres (steps, n) and unit gain
    at zero frequency (Klatt 1980).
    """
    from scipy.signal import sosfilt

    radius = np.exp(-np.pi * widths / RATE)
    first = -2 * radius * np.cos(2 * np.pi * centres / RATE)
    second = np.broadcast_to(radius**2, first.shape)
    zeros, ones = np.zeros_like(first), np.ones_like(first)
    sections = np.stack([1 + first + second, zeros, zeros, ones, first, second], axis=-1)
    state = np.zeros((centres.shape[1], 2))
    blocks = []
    for section, block in zip(sections, source.reshape(-1, STEP), strict=True):
        block, state = sosfilt(section, block, zi=state)
        blocks.append(block)
    return np.concatenate(blocks)
