"""The pipeline on public data sets, beside published figures."""
