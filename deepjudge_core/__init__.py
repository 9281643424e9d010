"""Tell whether a suspect deep-learning model is a copy of yours."""
