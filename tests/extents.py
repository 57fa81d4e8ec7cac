"""Where things lie in a saved picture."""

from rkdkit.figures import saving


def saved_extents(figure, labelled, legend):
    """Where an axes' x label, a legend and the caption lie in the saved picture, in dots."""
    pictured = []
    draw = type(figure).draw

    def drawing(self, renderer):
        draw(self, renderer)
        boxes = [labelled.xaxis.label, legend, *self.texts[-1:]]
        pictured[:] = [box.get_window_extent(renderer) for box in boxes]

    figure.draw = drawing.__get__(figure)
    saving._captioned(figure, "one line\nand another\nand a third", "title")
    return pictured
