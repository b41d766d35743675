"""What a teacher says about each example, computed once, in the examples' order."""

import torch

from teachback.devices import autocast
from teachback.encoding import EncodedRows, batches
from teachback.teacher import Teacher


@torch.no_grad()
def teacher_logits(
    teacher: Teacher, encoded: EncodedRows, pad_token_id: int, batch_size: int, device, precision: str
) -> torch.Tensor:
    """Logits of each row's own head [N, C] in float32; the teacher answers in eval mode."""
    teacher.to(device).eval()
    logits = torch.empty(len(encoded), teacher.classifier.classes)
    for batch in batches(encoded, batch_size, pad_token_id):
        index = batch.pop("index")
        with autocast(precision, device):
            outputs = teacher.outputs({name: values.to(device) for name, values in batch.items()})
        logits[index] = outputs.logits.float().cpu()
    return logits
