"""What users test with: parts of this package that stand in for the outside world. Shipped, documented, stable."""
