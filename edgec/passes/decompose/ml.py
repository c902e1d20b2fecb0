"""Own rules for the operators of ai.onnx.ml, which no runtime for devices has."""

from __future__ import annotations

from edgec.passes.decompose.ml_features import (
    array_feature_extractor,
    binarizer,
    feature_vectorizer,
    imputer,
    label_encoder,
    normalizer,
    one_hot_encoder,
    scaler,
)
from edgec.passes.decompose.ml_linear import linear_classifier, linear_regressor
from edgec.passes.decompose.ml_svm import svm_classifier, svm_regressor
from edgec.passes.decompose.own import OwnRule
from edgec.passes.decompose.trees import tree_classifier, tree_ensemble, tree_regressor

#: Operator → rule; see each one's docstring for what it becomes.
ML_RULES: dict[str, OwnRule] = {
    "ArrayFeatureExtractor": array_feature_extractor,
    "Binarizer": binarizer,
    "FeatureVectorizer": feature_vectorizer,
    "Imputer": imputer,
    "LabelEncoder": label_encoder,
    "LinearClassifier": linear_classifier,
    "LinearRegressor": linear_regressor,
    "Normalizer": normalizer,
    "OneHotEncoder": one_hot_encoder,
    "SVMClassifier": svm_classifier,
    "SVMRegressor": svm_regressor,
    "Scaler": scaler,
    "TreeEnsemble": tree_ensemble,
    "TreeEnsembleClassifier": tree_classifier,
    "TreeEnsembleRegressor": tree_regressor,
}
