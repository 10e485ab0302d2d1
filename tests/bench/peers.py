"""Checkouts of tiny programs with the files and the interfaces of the peers, for tests."""

from pathlib import Path

TVO = {
    "tvo/__init__.py": "",
    "tvo/utils/__init__.py": "",
    "tvo/models/__init__.py": "from tvo.models.tvae import GaussianTVAE\n",
    "tvo/models/tvae.py": """
class GaussianTVAE:
    def __init__(self, W_init, b_init, pi_init, sigma2_init, precision, min_lr, max_lr):
        self.weights, self.variance = W_init, sigma2_init
        assert [w.shape[1] for w in W_init] == [len(b) for b in b_init]
        assert W_init[0].shape[0] == len(pi_init)
    def data_estimator(self, rows, data, states):
        assert len(rows) == len(data) and len(states.K)
        return data
""",
    "tvo/trainer/__init__.py": "from tvo.trainer.Trainer import Trainer\n",
    "tvo/trainer/Trainer.py": """
class Trainer:
    def __init__(self, model, data, states):
        self.model, self.data, self.states = model, data, states
        self.train_states = states
    def em_step(self):
        print("this would spoil the output of the benchmark")
        assert self.states.K.shape[0] == len(self.data.rows)
        return {"train_F": -float(len(self.data.rows))}
    e_step = em_step
""",
    "tvo/variational/__init__.py": "from tvo.variational.evo import EVOVariationalStates\n",
    "tvo/variational/evo.py": """
import torch
class EVOVariationalStates:
    def __init__(self, N, H, S, **settings):
        self.K = torch.zeros(N, S, H, dtype=torch.uint8)
""",
    "tvo/variational/_set_redundant_lpj_to_low_CPU.so": "",
    "tvo/utils/data.py": """
class TVODataLoader:
    def __init__(self, rows, batch_size, shuffle):
        self.rows = rows
""",
}
VSC = {
    "src/models/base_model.py": """
import tensorflow, scipy.misc
from torchvision.utils import save_image
class VariationalBaseModel:
    def step(self, data, train=False):
        return float(self.loss_function(data, *self.model(data), train=train))
""",
    "src/models/vsc.py": """
from .base_model import VariationalBaseModel
class VariationalSparseCoding(VariationalBaseModel):
    def __init__(self, dataset, width, height, channels, hidden_sz, latent_sz, learning_rate,
                 alpha, device, log_interval, normalize, flatten):
        self.model = lambda data: (data,)
    def loss_function(self, x, output):
        return (x - output).sum()
""",
}
PYTHAE = {
    "src/pythae/__init__.py": "",
    "src/pythae/data/__init__.py": "",
    "src/pythae/data/datasets.py": "DatasetOutput = dict\n",
    "src/pythae/models/__init__.py": """
from pythae.models.vae.vae_model import VAE
VAEConfig = dict
""",
    "src/pythae/models/base/__init__.py": "",
    "src/pythae/models/base/base_utils.py": "ModelOutput = dict\n",
    "src/pythae/models/nn/__init__.py": """
from torch.nn import Module
class BaseEncoder(Module): pass
class BaseDecoder(Module): pass
""",
    "src/pythae/models/vae/__init__.py": "",
    "src/pythae/models/vae/vae_model.py": """
class VAE:
    def __init__(self, config, encoder, decoder):
        self.encoder, self.decoder = encoder, decoder
    def __call__(self, data):
        return self.decoder(self.encoder(data)["embedding"])["reconstruction"]
""",
    "src/pythae/trainers/__init__.py": """
from pythae.trainers.base_trainer.base_trainer import BaseTrainer
BaseTrainerConfig = dict
""",
    "src/pythae/trainers/base_trainer/__init__.py": "",
    "src/pythae/trainers/base_trainer/base_trainer.py": """
class BaseTrainer:
    def __init__(self, model, train_dataset, training_config):
        self.model, self.loader = model, train_dataset
    def prepare_training(self):
        pass
    def train_step(self, epoch):
        for batch in self.loader:
            assert self.model(batch["data"]).shape == batch["data"].shape == (32, 784)
        return 0.0
""",
}
MADE = {"tvo": TVO, "vsc": VSC, "pythae": PYTHAE}


def make_checkout(name: str, folder: Path) -> Path:
    """Write a tiny program that is recognised as a peer."""
    for file, content in MADE[name].items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    return folder
