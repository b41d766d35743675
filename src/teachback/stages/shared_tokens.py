"""Choice of a tokenizer that suits both teacher and student in stage 4, where both read the same batches."""

from pathlib import Path

from teachback.data.common_tokens import TYPES, certainly_same, reads_like
from teachback.data.schema import Row
from teachback.methods.teacher import Teacher
from teachback.models.layers import token_fields
from teachback.models.loading import load_tokenizer
from teachback.stages.context import Context


def shared_tokenizer(context: Context, rows: list[Row], student, tokenizer, teacher: Teacher, folder: Path):
    """Tokenizer that encodes ``rows`` as each model's does; None if there is none.

    It is the student's, or the teacher's (in ``folder``) if only that has the token types that a model needs.
    """
    of_teacher = load_tokenizer(str(folder))
    if tokenizer.pad_token_id != of_teacher.pad_token_id:  # decoders locate the last token by it
        return None
    if certainly_same(tokenizer, of_teacher):
        return tokenizer
    domains = sorted({row.domain for row in rows})
    for_student, for_teacher = (context.encode(rows, domains, one) for one in (tokenizer, of_teacher))
    by_student, by_teacher = (TYPES in token_fields(one) for one in (student, teacher.classifier.model))
    for chosen, encoded in ((tokenizer, for_student), (of_teacher, for_teacher)):
        if reads_like(encoded, for_student, by_student) and reads_like(encoded, for_teacher, by_teacher):
            return chosen
    return None
