"""Places for lesions in real volumes, and the shape of training lesions in depth and in the plane."""
