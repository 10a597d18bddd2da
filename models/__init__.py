"""What predicts? Interchangeable estimators over one table of features, and the reasons behind each prediction."""
