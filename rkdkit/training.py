"""The training loop, one epoch at a time. It does not use the disk, figures or evaluations."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from rkdkit import accumulation, attacks, checks, data, methods, models, runtime
from rkdkit.determinism import derived_seed, exact_arithmetic, generator
from rkdkit.group.batch_norm import over_whole_batches
from rkdkit.group.shares import ALONE, Shares
from rkdkit.modes import eval_without_gradients, folded_for_inference
from rkdkit.spec import AVERAGED, SMALLEST_BATCH, RunSpec


class DivergedError(FloatingPointError):
    """The loss or a weight became NaN or infinite; nothing of that epoch is kept."""


@dataclass(frozen=True)
class EpochReport:
    """The numbers that an epoch reports.

    Attributes
    ----------
    epoch : its number, counted from 1.
    loss : the mean loss of its steps; of a replayed batch, only the last step counts.
    lr : the learning rate of its last step.
    """

    epoch: int
    loss: float
    lr: float


class Training:
    """A training that can be advanced by one epoch, saved as tensors, and resumed with the same results bit for bit.

    Parameters
    ----------
    spec : what to train.
    dataset : the dataset that `spec.dataset` names.
    device : the device to train on.
    teachers : the networks of `spec.teachers`, in the same order, on `device`; they are not changed.
    extra : the images of `spec.extra`.
    networks : the networks to train, by role, on `device`; None: new networks with weights from `spec.seed`.
    shares : the processes that train the networks together. Each makes a :class:`Training` of its own, of the same
        specification, data and teachers, and calls its methods in step with the others; each computes its share of the
        batches, and all get the same weights.

    Attributes
    ----------
    networks : the trained networks by role: "student", and "peer" if the method has one.
    epoch : the number of finished epochs.
    compiled : whether the networks are compiled, as `runtime` decides; by several processes, they are not.
    graphs : what captures an attack's steps as one graph; None, as `runtime` decides and by several processes: nothing
        is captured.
    micro_batch : how many images of a batch go through the networks at once at most; None: the whole batch.

    Raises
    ------
    ValueError
        If the dataset has fewer images than the specification needs, a teacher's number of logits is not the number of
        classes, a batch has fewer images than there are processes, or it is to be taken in parts and a network would be
        trained otherwise by that (:class:`accumulation.BatchStatisticsError`).
    """

    def __init__(
        self,
        spec: RunSpec,
        dataset: data.Dataset,
        device: torch.device,
        teachers: Sequence[nn.Module] = (),
        extra: data.Split | None = None,
        networks: Mapping[str, nn.Module] | None = None,
        shares: Shares = ALONE,
    ) -> None:
        self.spec, self.device, self.epoch, self.shares = spec, device, 0, shares
        self.method = methods.get(spec.method, spec.reading)
        self._settings = dict(spec.settings)
        self._train = runtime.placed(dataset.split_validation(spec.n_train, spec.n_val)[0], device)
        checks.number("The number of training images that are not held out", len(self._train), SMALLEST_BATCH)
        self._n_batch = min(spec.batch_size, len(self._train))
        if self._n_batch < shares.size:
            raise ValueError(
                f"{shares.size} processes cannot share batches of {self._n_batch} images, as {spec} has them: start "
                f"{self._n_batch} at most."
            )
        self._part = shares.of_batch(self._n_batch)
        self._extra = None if extra is None else runtime.placed(extra, device)
        self.batches_per_epoch = data.batches_per_epoch(len(self._train), spec.batch_size)
        self._teachers = tuple(teachers)
        few = data.to_float(self._train.take(slice(2)).images.to(device))
        self._check_teachers(few, len(dataset.classes))
        if networks is None:
            networks = {role: network.on(device) for role, network in fresh_networks(spec, dataset).items()}
        self.networks = {role: over_whole_batches(network, shares) for role, network in networks.items()}
        mine = self._part.stop - self._part.start
        self.micro_batch = accumulation.check(runtime.current().micro_batch, mine, self.networks, few)
        self._eps, self._step_size = spec.eps * self.method.eps_factor, spec.step_size
        if self.method.one_step is not None:
            self._step_size = self._eps * self.method.one_step
        self._replays = int(self._settings["m"]) if self.method.free else 1
        self._steps_per_epoch = self.batches_per_epoch * self._replays
        # carried over from batch to batch (Shafahi et al. 2019); the first batch gives its shape
        self._delta: Tensor | None = None
        self._averaged: AveragedModel | None = None
        if spec.swa_start is not None:
            self._averaged = AveragedModel(self.networks["student"])
        elif spec.ema_decay is not None:
            average = get_ema_multi_avg_fn(spec.ema_decay)  # type: ignore[no-untyped-call]
            self._averaged = AveragedModel(self.networks["student"], multi_avg_fn=average, use_buffers=True)
        self._start_optimiser()
        trained_and_fixed = [*self.networks.values(), *self._teachers]
        passes = spec.epochs * self._steps_per_epoch * spec.batch_size * (spec.attack_steps + 2)
        # what the processes send each other within a network would cut compiled code and graphs into pieces
        alone = shares.size == 1
        self.compiled = alone and runtime.compiles(device, trained_and_fixed, self._train.shape, passes)
        if self.compiled:
            for network in trained_and_fixed:
                runtime.compile_in_place(network)
        self.graphs = runtime.graphs(device, trained_and_fixed) if alone else None

    def run_epoch(self, on_step: Callable[[], object] = lambda: None) -> EpochReport:
        """Train one more epoch.

        Parameters
        ----------
        on_step : called after every step, for a progress bar.

        Raises
        ------
        DivergedError
            If the loss of a step or a weight is not finite; the message says at which step. The training cannot
            continue from there.
        """
        epoch = self.epoch + 1
        order = generator(self.spec.seed, epoch, "order and augmentation")
        start = self.shares.of_draws(generator(self.spec.seed, epoch, "attack start"), self._n_batch)
        self.shares.make_equal(self.state().values())
        for network in self.networks.values():
            network.train()
        step_losses = torch.empty(self.batches_per_epoch, device=self.device)
        if self._delta is not None:
            self._delta = self._delta[self._part]
        batches = self._batches(order)
        with exact_arithmetic(), ExitStack() as held:
            with self._autocast():  # teachers' weights are cast here, once for the whole epoch
                for teacher in self._teachers:
                    held.enter_context(folded_for_inference(teacher))
            for step, batch in enumerate(batches):
                step_losses[step] = self._step(self._images(batch), batch.labels[self._part], start)
                on_step()
            self.shares.add(step_losses)
            if self._delta is not None:
                self._delta = self.shares.whole_batch(self._delta, self._n_batch)
            self._check_finite(step_losses, epoch)
            if not self._each_step:
                self._scheduler.step()
            self.epoch = epoch
            self._average_epoch()
        return EpochReport(epoch, float(step_losses.mean()), self._lr)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights by role, ready for evaluation, with the averaged student once averaging has begun."""
        roles = {role: dict(network.state_dict()) for role, network in self.networks.items()}
        if self._averaged is not None and self._averaging:
            roles[AVERAGED] = dict(self._averaged.module.state_dict())
        return roles

    def state(self) -> dict[str, Tensor]:
        """Return what the next epoch depends on, by name: weights, momentum, averages, replayed perturbation."""
        state = {f"{role}.{k}": v for role, net in self.networks.items() for k, v in net.state_dict().items()}
        for i, parameter in enumerate(self._parameters):
            momentum = self._optimiser.state[parameter].get("momentum_buffer")
            if momentum is not None:
                state[f"momentum.{i}"] = momentum
        if self._averaged is not None:
            state |= {f"averaged.{k}": v for k, v in self._averaged.state_dict().items()}
        if self._delta is not None:
            state["delta"] = self._delta
        return state

    def load_state(self, state: dict[str, Tensor], epoch: int) -> None:
        """Resume from the state that :meth:`state` returned after `epoch` epochs."""
        for role, network in self.networks.items():
            network.load_state_dict(under(state, role))
        if self._averaged is not None:
            self._averaged.load_state_dict(under(state, "averaged"))
        if "delta" in state:
            self._delta = state["delta"].to(self.device)
        # a new optimiser and a repeated schedule give the same floating-point values as the first time
        self._start_optimiser()
        for name, momentum in under(state, "momentum").items():
            parameter = self._parameters[int(name)]
            self._optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for _ in range(epoch * (self._steps_per_epoch if self._each_step else 1)):
                self._scheduler.step()
        self.epoch = epoch

    def _step(self, images: Tensor, labels: Tensor, start: torch.Generator) -> Tensor:
        if self.method.free:
            return self._replay(images, labels, start)
        self._optimiser.zero_grad(set_to_none=True)
        return self._update(
            *accumulation.in_parts(self._loss, (images, labels), start, self.micro_batch, self._n_batch)
        )

    def _loss(self, images: Tensor, labels: Tensor, start: torch.Generator) -> tuple[Tensor, methods.Logits]:
        """Attack some images, and return the loss at all points and what has the logits there."""
        row, logits = self.method, methods.Logits(self._by_slot(), {"x": images}, self._weights())
        with self._autocast():
            for maximised in row.maximises:
                attack = attacks.PGD(self._eps, self._step_size, self.spec.attack_steps, maximised.start)
                examples = methods.adversarial_examples(
                    *(maximised, logits, images, labels, attack, start, row.attack_mode),
                    clamps_start=row.clamps(maximised),
                    graphs=self.graphs,
                )
                logits.add(maximised.makes, examples)
            return methods.loss(row, self._settings, logits, labels, self.epoch / self.spec.epochs), logits

    def _replay(self, images: Tensor, labels: Tensor, start: torch.Generator) -> Tensor:
        """Take `m` updates on one batch; each gradient also updates the perturbation (Shafahi et al. 2019)."""
        delta = torch.zeros_like(images) if self._delta is None else self._delta
        asked: dict[int, methods.Logits] = {}  # by where a part begins: fixed teachers answer it once for all updates

        def loss_of(images: Tensor, labels: Tensor, delta: Tensor, _: torch.Generator) -> tuple[Tensor, methods.Logits]:
            begins = int(images.storage_offset())
            if begins not in asked:
                asked[begins] = methods.Logits(self._by_slot(), {"x": images}, self._weights())
            logits = asked[begins]
            with self._autocast():
                logits.add("x*", (images + delta).clamp(0, 1))
                return methods.loss(self.method, self._settings, logits, labels, self.epoch / self.spec.epochs), logits

        for _ in range(self._replays):
            delta.requires_grad_(True)
            self._optimiser.zero_grad(set_to_none=True)
            tensors = (images, labels, delta)
            report = self._update(*accumulation.in_parts(loss_of, tensors, start, self.micro_batch, self._n_batch))
            assert delta.grad is not None
            delta = (delta.detach() + self._step_size * delta.grad.sign()).clamp_(-self._eps, self._eps)
        self._delta = delta
        return report

    def _update(self, loss: Tensor, logits: methods.Logits) -> Tensor:
        loss.backward()  # type: ignore[no-untyped-call]
        self.shares.add_gradients(self._parameters)
        self._optimiser.step()
        with self._autocast():
            for point in self.method.points_passed_after:
                logits.move_statistics(point)
        self._lr = float(self._optimiser.param_groups[0]["lr"])
        if self._each_step:
            self._scheduler.step()
        if self._averaged is not None and self.spec.ema_decay is not None:
            self._averaged.update_parameters(self.networks["student"])
        return loss.detach()

    def _by_slot(self) -> dict[str, tuple[nn.Module, ...]]:
        trained = {slot: (self.networks[role],) for slot, role in methods.TRAINED.items() if role in self.networks}
        pairs = list(zip(self.spec.teachers, self._teachers, strict=True))
        return {**trained, **{g: tuple(n for t, n in pairs if t.slot == g) for g in self.method.guides}}

    def _weights(self) -> dict[str, tuple[float, ...]]:
        return {g: tuple(t.weight for t in self.spec.teachers if t.slot == g) for g in self.method.guides}

    def _batches(self, order: torch.Generator) -> Iterator[data.Split]:
        spec, mixed_in = self.spec, (self._extra, self.spec.extra_fraction)
        return data.batches(self._train, spec.batch_size, spec.augmentation, order, *mixed_in, self.device)

    def _images(self, batch: data.Split) -> Tensor:
        """Return this process's share of a batch's images."""
        return batch.images[self._part].contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _check_teachers(self, images: Tensor, classes: int) -> None:
        for teacher, network in zip(self.spec.teachers, self._teachers, strict=True):
            with eval_without_gradients(network):
                try:
                    answer = network(images)
                except (RuntimeError, ValueError) as error:
                    raise ValueError(
                        f"The teacher {teacher} cannot take images of shape {tuple(images.shape[1:])}, as "
                        f"{self.spec.dataset} has them: {error}"
                    ) from error
            if not isinstance(answer, Tensor):  # a module from elsewhere may return anything
                raise ValueError(f"The teacher {teacher} must answer with logits, not with a {type(answer).__name__}.")
            if answer.shape != (len(images), classes):
                raise ValueError(
                    f"The teacher {teacher} answers two images with logits of shape {tuple(answer.shape)}, but the "
                    f"student has {classes} classes: a teacher must give one logit per class of {self.spec.dataset}."
                )

    @property
    def _averaging(self) -> bool:
        return AVERAGED in self.spec.roles_at(self.epoch)

    def _average_epoch(self) -> None:
        """Average the weights at the end of an epoch (SWA)."""
        if self._averaged is None or self.spec.swa_start is None or not self._averaging:
            return
        self._averaged.update_parameters(self.networks["student"])
        if not self.spec.has_snapshot(self.epoch):
            return
        # averaged weights have no batch-norm statistics of their own: one pass over the training set gives them
        batches = self._batches(generator(self.spec.seed, self.epoch, "batch-norm statistics"))
        with self._autocast():
            update_bn(map(self._images, batches), self._averaged.module)

    def _start_optimiser(self) -> None:
        spec = self.spec
        self._parameters = [p for network in self.networks.values() for p in network.parameters()]
        self._optimiser = SGD(self._parameters, spec.lr, momentum=spec.momentum or 0.0, weight_decay=spec.weight_decay)
        self._each_step = spec.schedule == "onecycle"
        self._scheduler: schedulers.LRScheduler
        match spec.schedule:
            case "onecycle":
                total = spec.epochs * self._steps_per_epoch
                self._scheduler = schedulers.OneCycleLR(self._optimiser, spec.lr, total_steps=total)
            case "multistep":
                self._scheduler = schedulers.MultiStepLR(self._optimiser, list(spec.milestones), spec.gamma)
            case "exponential":
                self._scheduler = schedulers.ExponentialLR(self._optimiser, spec.gamma)
            case _:
                self._scheduler = schedulers.ConstantLR(self._optimiser, factor=1.0)

    def _check_finite(self, step_losses: Tensor, epoch: int) -> None:
        # once per epoch: checking after every step would make the device wait for the host
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
        weights = [w for network in self.networks.values() for w in network.state_dict().values()]
        return bool(torch.stack([w.isfinite().all() for w in weights]).all())

    def _autocast(self) -> AbstractContextManager[object]:
        # no cache: a weight cast under no_grad would be reused in the update, and its gradient lost
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.spec.precision == "bfloat16", cache_enabled=False
        )


def fresh_networks(spec: RunSpec, dataset: data.Dataset) -> dict[str, models.Classifier]:
    """Return a run's networks by role, on the CPU, with their weights before the first epoch.

    Parameters
    ----------
    spec : the run.
    dataset : gives the input channels, their normalisation (if the method normalises) and the number of classes.
    """
    row, (mean, std) = methods.get(spec.method, spec.reading), dataset.channel_statistics
    if not row.normalises:
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    names = {"student": spec.student, "peer": spec.peer}
    return {
        role: models.build(
            names[role],
            len(dataset.classes),
            mean,
            std,
            seed=derived_seed(spec.seed, 0, f"weights of {role}"),
        )
        for role in row.roles
    }


def under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix and a point, by the rest of their names."""
    return {name[len(prefix) + 1 :]: value for name, value in state.items() if name.startswith(prefix + ".")}
