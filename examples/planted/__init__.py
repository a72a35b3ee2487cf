"""Pictures with planted structures, for models that are no classifiers: a value, and regions."""
