"""Domain knowledge and object texts by a vision-language model, or by an offline describer."""

from trainers.dataset.describing.plan import PlanSettings
from trainers.dataset.describing.writing import Written, write_with_describer

__all__ = ["PlanSettings", "Written", "write_with_describer"]
