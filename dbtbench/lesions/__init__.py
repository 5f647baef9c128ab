"""Where lesions can lie in real volumes, and how deep and wide training lesions are."""
