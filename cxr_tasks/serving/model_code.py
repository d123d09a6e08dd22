"""The registered model as MLflow loads it: a model from code, of which nothing is pickled.

MLflow keeps a copy of this file with each model and runs it when the model is loaded. It needs ``cxr_tasks`` in the
environment; see docs/how-to/serving.md. A copy outlives what is installed: it names one class and nothing else.
"""

from mlflow.models import set_model

from cxr_tasks.serving.mlflow_model import ChestXrayModel

set_model(ChestXrayModel())
