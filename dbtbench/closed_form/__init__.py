"""Best linear model of training volumes, in closed form: where learned generators start, and a control.

It is a model of the square roots of intensities, which separate fat from air, of left breasts:

- a mean volume for each projection, with a lesion bump of one shape and one amplitude at each box;
- principal components of what differs from it;
- residual noise, of which the standard deviation depends on the predicted grey level, and the spectrum is
  that of the training volumes' residual.

model = fit_closed_form(train, components=64)     # ClosedForm, arrays of NumPy
volume = model.draw("lcc", boxes, seed=0)         # intensities, as displayed

start = LinearStart(grid, components)             # the same as a torch module: its statistics are buffers
start.fit(train)
mean = start.predict_mean(conditioning)           # with the bumps of the conditioning's boxes
roots = mean + start.decode(weights)              # weights: standard normal, (N, K)
weights = start.encode(roots - mean)
start.measure_texture(train, predict)             # of what a trained network leaves
volumes = start.to_intensities(start.add_texture(roots, noise))
"""
