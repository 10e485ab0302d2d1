"""Drive pythae: its trainer's loop over the batches of an epoch, on a VAE of our widths.

The batches are ready in memory, so that its data loader takes no time.
"""

from collections.abc import Callable
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from distvae.bench.beside.shape import BATCH, HIDDEN, LATENT, PIXELS, RATE, random_batches
from distvae.bench.beside.turns import Trained, Turn

Output = Callable[..., object]
"""Makes pythae's output of a net from named tensors."""


class EpochLoop(Protocol):
    """The methods of `pythae.trainers.BaseTrainer` that are used here."""

    def prepare_training(self) -> None:
        """Make the optimiser."""

    def train_step(self, epoch: int) -> float:
        """Train on all batches of the loader."""


def start(threads: int, steps: int) -> Turn:
    """Return the training of turns of so many steps."""
    torch.set_num_threads(threads)
    loop = new_loop(steps)

    def turn(number: int) -> Trained:
        loop.train_step(number + 1)
        return Trained(steps * BATCH)

    return turn


def new_loop(steps: int) -> EpochLoop:
    """Return pythae's loop over so many batches."""
    models, trainers = import_module("pythae.models"), import_module("pythae.trainers")
    config = models.VAEConfig(input_dim=(PIXELS,), latent_dim=LATENT, reconstruction_loss="bce")
    model = models.VAE(config, new_net("BaseEncoder", Encoder), new_net("BaseDecoder", Decoder))
    output = import_module("pythae.data.datasets").DatasetOutput
    batches = Batches(steps, output)
    with TemporaryDirectory(prefix="distvae-bench-") as folder:
        training = trainers.BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            no_cuda=True,
        )
        loop: EpochLoop = trainers.BaseTrainer(
            model, DataLoader(batches, batch_size=None), training_config=training
        )
        loop.prepare_training()
    return loop


def new_net(base: str, ours: type[nn.Module]) -> nn.Module:
    """Return one of the nets below, as a subclass of pythae's base class."""
    bases = (ours, getattr(import_module("pythae.models.nn"), base))
    output = import_module("pythae.models.base.base_utils").ModelOutput
    net: nn.Module = type(ours.__name__, bases, {})(output)
    return net


class Encoder(nn.Module):
    """784-400-200, with a mean and a log-variance."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output = output
        self.hidden = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

    def forward(self, x: Tensor) -> object:
        """Return the posterior of rows (B, 784)."""
        features = self.hidden(x)
        mean, log_variance = self.mean(features), self.log_variance(features)
        return self.output(embedding=mean, log_covariance=log_variance)


class Decoder(nn.Module):
    """200-400-784, with probabilities of pixels."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output = output
        self.net = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> object:
        """Return the reconstruction (B, 784) of codes (B, 200)."""
        return self.output(reconstruction=self.net(z))


class Batches(Dataset[object]):
    """Batches as pythae's loader would make them."""

    def __init__(self, steps: int, output: Callable[..., object]) -> None:
        self.steps, self.batches = steps, []
        for batch in random_batches():
            self.batches.append(output(data=batch, labels=torch.zeros(len(batch))))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, number: int) -> object:
        return self.batches[number % len(self.batches)]
