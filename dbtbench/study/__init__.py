"""The reader study: can people tell real volumes from synthetic ones?

choosing    cases, their order and the key
page        the page that readers open
answers     the files that they send back, and the key
scoring     accuracy, d′ and AUC with intervals
"""
