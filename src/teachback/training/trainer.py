"""The Trainer subclass of all stages, and resumable training with it.

A training module's ``forward(**batch)`` returns its mean ``loss``, and optionally ``logits``; the per-example loss terms
that it passes to `TrainingModule.note` are averaged into the log.
"""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file, save_file
from torch.utils.data import BatchSampler, DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from teachback.core.errors import naming
from teachback.core.files import sync
from teachback.core.integrity import seal
from teachback.core.tracking import NO_TRACKS, Tracks
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.encoding import Collator, EncodedRows, LengthBucketSampler, count_padding
from teachback.models.heads import Classifier
from teachback.models.layers import use_training_attention
from teachback.models.loading import check_finite
from teachback.models.positions import require_positions
from teachback.training.alternatives import copy_of, take_if_no_worse
from teachback.training.averaging import KeepEpochs, take_average
from teachback.training.checkpoints import (
    STATE,
    evaluations_without_gain,
    load_state,
    point_to_best,
    random_states,
    require_whole_checkpoint,
    restore_random_states,
    save_state,
)
from teachback.training.dropout import fast_dropout
from teachback.training.layer_rates import decay_by_layer
from teachback.training.loss_watch import LossWatch, StopOnBadLoss
from teachback.training.memory import freed_memory_kept
from teachback.training.module import TrainingModule
from teachback.training.progress import show_progress
from teachback.training.stopping import SaveBetween, stop_request
from teachback.training.vocabulary import EXACT_FOR, decay_others, restore, use_only

logger = logging.getLogger(__name__)


class DistillationTrainer(Trainer):
    """Trainer with batches of similar length, loss terms in the log, and checkpoints without pickle."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        rows: EncodedRows | None = self.train_dataset  # None where it only evaluates
        self.loss_watch = LossWatch(rows.guids if rows is not None else ())

    model: TrainingModule
    train_dataset: EncodedRows
    data_collator: Collator
    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LambdaLR
    tracks: Tracks = NO_TRACKS
    layer_decay = 1.0  # factor of the learning rate from a layer to the one below it
    averaged = False  # whether the model has the mean weights of the last epochs
    start_kept = False  # whether it has those before training
    stop_signal = 0  # signal that came after the end of training, when no checkpoint is needed

    def create_optimizer(self, *args, **kwargs):
        """Optimizer with a learning rate for each layer if ``layer_decay`` is below 1."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.layer_decay != 1:
            decay_by_layer(optimizer, self.model, self.layer_decay)
        return optimizer

    def get_train_dataloader(self):
        """Loader of batches of similar length, or of the fixed ``batches`` of the rows."""
        rows = self.train_dataset
        if not rows.batches:
            return super().get_train_dataloader()
        return DataLoader(rows, batch_sampler=rows.batches, collate_fn=self.data_collator)

    def get_eval_dataloader(self, eval_dataset=None):
        """Loader of all rows: ``dataloader_drop_last`` applies to training only."""
        drops, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drops

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        # Batches over all processes are cut first, so their composition does not depend on the number of processes.
        return LengthBucketSampler(dataset.lengths, self.args.train_batch_size * self.args.world_size, seed)

    def training_step(self, model, inputs, *args, **kwargs):
        with nullcontext() if self.args.torch_compile else fast_dropout(self.args.device):  # compiled code has fused dropout
            loss = super().training_step(model, inputs, *args, **kwargs)
        self.loss_watch.add(self.state.global_step + 1, self._get_learning_rate(), inputs.get("index"), loss)
        return loss

    def log(self, logs, *args, **kwargs):
        if "loss" in logs:
            logs = logs | {f"loss_{name}": value for name, value in self.model.take_terms().items()}
        super().log(logs, *args, **kwargs)
        self.tracks.log(logs, self.state.global_step)

    def _save_checkpoint(self, *args, **kwargs):
        self.loss_watch.check()
        advice = "lower the learning rate, or use PRECISION=fp32; the checkpoint before it is kept"
        check_finite(f"after step {self.state.global_step}", self.model, advice)
        with naming(str(self.args.output_dir)):
            super()._save_checkpoint(*args, **kwargs)
            if self.args.should_save:
                seal(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")

    def _save(self, output_dir=None, state_dict=None):
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        state = state_dict or self.model.state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        require_whole_checkpoint(Path(resume_from_checkpoint))
        target = self.model if model is None else model
        target.load_state_dict(load_file(Path(resume_from_checkpoint) / "model.safetensors"))

    def _load_best_model(self):
        self._load_from_checkpoint(self.state.best_model_checkpoint, self.model)

    def finish(self, checkpoint: Path) -> None:
        """Restore the best model of a training that ended at ``checkpoint`` and was interrupted before it was published."""
        self.state = TrainerState.load_from_json(str(checkpoint / STATE))
        self._load_from_checkpoint(self.state.best_model_checkpoint if self.args.load_best_model_at_end else checkpoint)
        self.log({"train_runtime": 0.0})  # marks the end of the training in the history

    def _save_optimizer_and_scheduler(self, output_dir):
        if self.args.should_save:
            state = {"optimizer": self.optimizer.state_dict(), "scheduler": self.lr_scheduler.state_dict()}
            state["module"] = self.model.further_state()
            save_state(Path(output_dir) / "optimizer", state)

    def _load_optimizer_and_scheduler(self, checkpoint):
        if checkpoint is not None:
            state = load_state(Path(checkpoint) / "optimizer")
            self.optimizer.load_state_dict(state["optimizer"])
            self.lr_scheduler.load_state_dict(state["scheduler"])
            self.model.load_further_state(state["module"])

    def _save_scaler(self, output_dir):
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None and self.args.should_save:
            save_state(Path(output_dir) / "scaler", scaler.state_dict())

    def _load_scaler(self, checkpoint):
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None and checkpoint is not None:
            scaler.load_state_dict(load_state(Path(checkpoint) / "scaler"))

    def _save_rng_state(self, output_dir):
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_state(Path(output_dir) / f"random_{self.args.process_index}", random_states())
        self.accelerator.wait_for_everyone()
        if self.args.should_save:  # the Trainer's state is written next and marks the checkpoint as complete
            sync(output_dir)

    def _load_rng_state(self, checkpoint):
        if checkpoint is not None:
            restore_random_states(load_state(Path(checkpoint) / f"random_{self.args.process_index}"))


class ModuleSteps(TrainerCallback):
    """Hooks around the steps of a training module: report padding, apply weight decay to unused embeddings, end its epochs."""

    def __init__(self, trainer: DistillationTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Print the share of padding in the first epoch, over all processes."""
        if state.global_step:  # a resumed run, whose history has it
            return
        batches = batches_of_all_processes(train_dataloader.batch_sampler)
        padding = count_padding(self.trainer.train_dataset, batches, self.trainer.data_collator.multiple)
        self.trainer.log({"padding_share": padding.share})
        if state.is_world_process_zero:
            print(padding)

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        decay_others(self.trainer.model, optimizer)

    def on_epoch_end(self, args, state, control, **kwargs):
        if values := self.trainer.model.on_epoch_end():
            self.trainer.log(values)


def batches_of_all_processes(sampler: BatchSampler) -> Iterator[list[int]]:
    """Row numbers of all batches of an epoch over all processes, given the batch sampler of any process."""
    if not isinstance(sampler, BatchSamplerShard):
        yield from sampler
        return
    for process in range(sampler.num_processes):
        shard = copy.copy(sampler)
        shard.process_index = process
        yield from shard


def _check_lengths(module: TrainingModule, *parts: EncodedRows) -> None:
    """Raise TeachbackError before the first step if a text is too long for a model."""
    longest = max(max(part.lengths, default=0) for part in parts)
    for part in module.modules():
        if isinstance(part, Classifier):
            require_positions(part.model, longest)


def _for_trainer(args: TrainingArguments, checkpoints: Path, scored: bool, patience: int) -> TrainingArguments:
    """Copy the arguments for a training into ``checkpoints``. ``scored``: there is a metric ``score``."""
    args = copy.copy(args)
    args.output_dir = str(checkpoints)
    args.restore_callback_states_from_checkpoint |= bool(patience)  # the evaluations counted so far
    if args.metric_for_best_model in (None, "loss"):  # the Trainer's default is the loss
        args.metric_for_best_model = "score" if scored else "loss"
        args.greater_is_better = scored
    return args


@contextmanager
def _used_embeddings(module: TrainingModule, train_rows, dev_rows, args: TrainingArguments, pad_token_id: int):
    """Restrict trained models, within the block, to the embeddings of tokens that occur."""
    models = [part.model for part in module.modules() if isinstance(part, Classifier)]
    if args.optim in EXACT_FOR:
        for model in models:
            use_only(model, [train_rows, dev_rows, *module.further_rows()], pad_token_id)
    try:
        yield
    finally:
        for model in models:
            restore(model)


def _take_alternatives(trainer: DistillationTrainer, settings: OptimizerArguments, checkpoints: Path, start: dict) -> None:
    """Replace the best epoch's weights by the mean of the last ones or by ``start`` if these score no worse; records which is kept."""
    averaged = bool(settings.average_checkpoints) and take_average(trainer, checkpoints)
    trainer.start_kept = bool(start) and take_if_no_worse(trainer, start, "weights before training")
    trainer.averaged = averaged and not trainer.start_kept


def train(module: TrainingModule, train_rows: EncodedRows, dev_rows: EncodedRows, args: TrainingArguments,
          checkpoints: Path, last: str | None, pad_token_id: int, compute_metrics=None, tracks: Tracks = NO_TRACKS,
          settings: OptimizerArguments | None = None) -> DistillationTrainer:  # fmt: skip
    """Train ``module`` in place, resuming from checkpoint ``last``, and restore the best checkpoint on ``dev_rows``.

    ``settings``: what ``args`` were built from; read for fields that Hugging Face's arguments lack. With its
    ``average_checkpoints``, the mean weights of the last epochs replace the best checkpoint if they are no worse; with its
    ``keep_start``, the weights before training do.

    Selects on the metric ``score`` if ``compute_metrics`` gives one (higher is better), else on the loss.
    """
    settings = settings or OptimizerArguments()
    args = _for_trainer(args, checkpoints, compute_metrics is not None, settings.patience)
    use_training_attention(module, args.device)
    _check_lengths(module, train_rows, dev_rows)
    trainer = DistillationTrainer(
        model=module,
        args=args,
        data_collator=Collator(pad_token_id, multiple=1 if args.use_cpu else 8),
        train_dataset=train_rows,
        eval_dataset=dev_rows,
        compute_metrics=compute_metrics,
        callbacks=[StopOnBadLoss()],
    )
    trainer.tracks, trainer.layer_decay = tracks, settings.layer_decay
    if settings.patience:
        trainer.add_callback(EarlyStoppingCallback(settings.patience))
    show_progress(trainer, settings)
    trainer.add_callback(ModuleSteps(trainer))
    if settings.average_checkpoints:
        trainer.add_callback(KeepEpochs(module, checkpoints, settings.average_checkpoints))
    if last:
        logger.warning("continuing from %s", last)
        point_to_best(Path(last))
    with stop_request() as request, freed_memory_kept(), _used_embeddings(module, train_rows, dev_rows, args, pad_token_id):
        trainer.add_callback(SaveBetween(request))
        start = copy_of(module) if settings.keep_start else {}
        if settings.patience and last and evaluations_without_gain(Path(last)) >= settings.patience:
            trainer.finish(Path(last))
        else:
            trainer.train(resume_from_checkpoint=last)
        _take_alternatives(trainer, settings, checkpoints, start)
    trainer.stop_signal = request.signal if request.made else 0
    return trainer
