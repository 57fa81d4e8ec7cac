"""The training loop, one epoch at a time. It knows nothing of disks, figures or evaluations."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import AveragedModel, update_bn

from rkdkit import attacks, data, methods, models
from rkdkit.determinism import derived_seed, exact_arithmetic, generator
from rkdkit.spec import RunSpec

AVERAGED = "student_averaged"
"""The role of the student's averaged weights, where a run averages them."""


class DivergedError(FloatingPointError):
    """The loss became NaN or infinite; nothing of that epoch is kept."""


@dataclass(frozen=True)
class EpochReport:
    """What an epoch leaves beside the weights.

    Attributes
    ----------
    epoch : its number, counted from 1.
    loss : the mean loss of its steps.
    lr : the learning rate of its last step.
    """

    epoch: int
    loss: float
    lr: float


class Training:
    """A training that can be advanced by an epoch, saved as tensors and continued to the same bits.

    Parameters
    ----------
    spec : what to train.
    dataset : the data, as `spec.dataset` names it.
    device : where to train.

    Attributes
    ----------
    networks : by role: "student", and "peer" where the method has one.
    epoch : how many epochs are finished.

    Raises
    ------
    ValueError
        If the data hold fewer images than the specification asks for.
    """

    def __init__(self, spec: RunSpec, dataset: data.Dataset, device: torch.device) -> None:
        self.spec, self.device, self.epoch = spec, device, 0
        self.method = methods.get(spec.method)
        self._settings = dict(spec.settings)
        self._train = dataset.split_validation(spec.n_train, spec.n_val)[0].to(device)
        self.batches_per_epoch = data.batches_per_epoch(len(self._train), spec.batch_size)
        self.networks: dict[str, nn.Module] = {
            role: network.on(device) for role, network in fresh_networks(spec, dataset).items()
        }
        self._attack = attacks.PGD(spec.eps, spec.step_size, spec.attack_steps, self.method.start)
        self._averaged = AveragedModel(self.networks["student"]) if spec.swa_start is not None else None
        self._start_optimiser()

    def run_epoch(self, on_step: Callable[[], object] = lambda: None) -> EpochReport:
        """Train one epoch more.

        Parameters
        ----------
        on_step : called after every step, for a progress bar.

        Raises
        ------
        DivergedError
            If the loss of a step was not finite; the message says at which. The training cannot go on from there.
        """
        epoch = self.epoch + 1
        order = generator(self.spec.seed, epoch, "order and augmentation")
        start = generator(self.spec.seed, epoch, "attack start")
        for network in self.networks.values():
            network.train()
        step_losses = torch.empty(self.batches_per_epoch, device=self.device)
        batches = data.batches(self._train, self.spec.batch_size, self.spec.augmentation, order)
        with exact_arithmetic():
            for step, batch in enumerate(batches):
                images = batch.images.contiguous(memory_format=torch.channels_last)
                step_losses[step] = self._step(images, batch.labels, start)
                self._optimiser.step()
                lr = float(self._optimiser.param_groups[0]["lr"])
                if self._each_step:
                    self._scheduler.step()
                on_step()
            self._check_finite(step_losses, epoch)
            if not self._each_step:
                self._scheduler.step()
            self.epoch = epoch
            self._update_average()
        return EpochReport(epoch, float(step_losses.mean()), lr)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights by role, ready to be evaluated; the averaged student is there once averaging began."""
        roles = {role: dict(network.state_dict()) for role, network in self.networks.items()}
        if self._averaged is not None and self._averaging:
            roles[AVERAGED] = dict(self._averaged.module.state_dict())
        return roles

    def state(self) -> dict[str, Tensor]:
        """Return all that the next epoch depends on, by name: weights, momentum, averages."""
        state = {f"{role}.{k}": v for role, net in self.networks.items() for k, v in net.state_dict().items()}
        for i, parameter in enumerate(self._parameters):
            momentum = self._optimiser.state[parameter].get("momentum_buffer")
            if momentum is not None:
                state[f"momentum.{i}"] = momentum
        if self._averaged is not None:
            state |= {f"averaged.{k}": v for k, v in self._averaged.state_dict().items()}
        return state

    def load_state(self, state: dict[str, Tensor], epoch: int) -> None:
        """Continue from what :meth:`state` returned after `epoch` epochs."""
        for role, network in self.networks.items():
            network.load_state_dict(_under(state, role))
        if self._averaged is not None:
            self._averaged.load_state_dict(_under(state, "averaged"))
        # a fresh optimiser and a replayed schedule pass through the same floating-point values as the first time
        self._start_optimiser()
        for name, momentum in _under(state, "momentum").items():
            parameter = self._parameters[int(name)]
            self._optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for _ in range(epoch * (self.batches_per_epoch if self._each_step else 1)):
                self._scheduler.step()
        self.epoch = epoch

    def _step(self, images: Tensor, labels: Tensor, start: torch.Generator) -> Tensor:
        points = {"x": images}
        with self._autocast():
            if self.method.maximises is not None:
                points["x*"] = methods.adversarial_examples(
                    self.method, self.networks, images, labels, self._attack.perturb, start
                )
            logits = methods.Logits(self.networks, points)
            loss = methods.loss(self.method, self._settings, logits, labels)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    @property
    def _averaging(self) -> bool:
        return self.spec.swa_start is not None and self.epoch > self.spec.swa_start

    def _update_average(self) -> None:
        if self._averaged is None or not self._averaging:
            return
        self._averaged.update_parameters(self.networks["student"])
        # the averaged weights have seen no data: their batch-norm statistics come from one pass over the training set
        order = generator(self.spec.seed, self.epoch, "batch-norm statistics")
        batches = data.batches(self._train, self.spec.batch_size, self.spec.augmentation, order)
        with self._autocast():
            update_bn(
                (batch.images.contiguous(memory_format=torch.channels_last) for batch in batches),
                self._averaged.module,
            )

    def _start_optimiser(self) -> None:
        spec = self.spec
        self._parameters = [p for network in self.networks.values() for p in network.parameters()]
        self._optimiser = SGD(self._parameters, spec.lr, momentum=spec.momentum or 0.0, weight_decay=spec.weight_decay)
        self._each_step = spec.schedule == "onecycle"
        self._scheduler: schedulers.LRScheduler
        match spec.schedule:
            case "onecycle":
                total = spec.epochs * self.batches_per_epoch
                self._scheduler = schedulers.OneCycleLR(self._optimiser, spec.lr, total_steps=total)
            case "multistep":
                self._scheduler = schedulers.MultiStepLR(self._optimiser, list(spec.milestones), spec.gamma)
            case "exponential":
                self._scheduler = schedulers.ExponentialLR(self._optimiser, spec.gamma)
            case _:
                self._scheduler = schedulers.ConstantLR(self._optimiser, factor=1.0)

    def _check_finite(self, step_losses: Tensor, epoch: int) -> None:
        # once an epoch: asking after every step would make the device wait for the host
        bad = torch.nonzero(~torch.isfinite(step_losses))
        step = int(bad[0]) + 1 if len(bad) else self.batches_per_epoch
        if len(bad) or not self._weights_are_finite():
            what = f"loss of {self.spec} became {step_losses[step - 1].item()}" if len(bad) else "weights became NaN"
            raise DivergedError(
                f"The {what} at step {step} of {self.batches_per_epoch} in epoch {epoch}. Nothing of that epoch "
                f"was kept. A lower lr (now {self.spec.lr:g}) or precision='float32' (now "
                f"{self.spec.precision!r}) may help."
            )

    def _weights_are_finite(self) -> bool:
        return all(
            bool(w.isfinite().all()) for network in self.networks.values() for w in network.state_dict().values()
        )

    def _autocast(self) -> AbstractContextManager[object]:
        # no cache: a weight cast under no_grad would be reused in the update, and its gradient lost
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.spec.precision == "bfloat16", cache_enabled=False
        )


def fresh_networks(spec: RunSpec, dataset: data.Dataset) -> dict[str, models.Classifier]:
    """Return a run's networks by role, on the CPU, as they are before the first epoch.

    Parameters
    ----------
    spec : the run.
    dataset : decides the input channels, their normalisation and the number of classes.
    """
    mean, std = dataset.channel_statistics
    names = {"student": spec.student, "peer": spec.peer}
    return {
        role: models.build(
            names[role],
            len(dataset.classes),
            mean,
            std,
            seed=derived_seed(spec.seed, 0, f"weights of {role}"),
        )
        for role in methods.get(spec.method).roles
    }


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in state.items() if name.startswith(prefix + ".")}
