"""Domain knowledge and object texts by a vision-language model, or by an offline describer."""
