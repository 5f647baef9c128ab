"""The embedded data: anatomy, lesions, acquisition and reconstruction of a physical phantom.

anatomy         the compressed breast: its outline, its tissues, their attenuation
texture         power-law random fields and thin tubes, the material of anatomy and lesions
lesions         masses, spiculated masses, distortions and asymmetries, placed once for all views
acquisition     fifteen noisy projections of an attenuation map
reconstruction  filtered back-projection, and pixel values for a viewer
simulation      all of these in one: a patient and a view in, a volume and its box out
cohort          many patients as DICOM files and the three tables of BCS-DBT

Lengths are in mm, attenuation in 1/mm. Arrays are `[z, y, x]`: z rises from the breast support (the
detector side), y runs along the chest wall from the top of the displayed picture, x from the chest wall
to the nipple; so every breast is simulated as a left one, and right views are mirrored at the end.
"""
