"""Where a person answers as the model ``human/human``: a page, and what it asks for."""
