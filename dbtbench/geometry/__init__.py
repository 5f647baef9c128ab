"""Views and laterality, boxes, and resampling onto a grid."""
