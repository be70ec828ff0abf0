"""The classifier in a browser, and behind one REST call.

Reads models/classifier, models/onnx, data/predictions/test.parquet, and the same outputs of any tag or experiment.

    python -m apps.demo
    python -m apps.demo --help
"""
