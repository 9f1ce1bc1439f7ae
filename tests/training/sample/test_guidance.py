from training.sample.guidance import resolution_weights


def test_resolution_weights_grow_from_1_to_8_in_stable_diffusion():
    heights = [64, 64, 64, 32, 32, 32, 16, 16, 16, 8, 8, 8, 8]  # of 12 encoder outputs and middle
    assert resolution_weights(heights) == [1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8]


def test_resolution_weights_do_not_depend_on_the_pictures_size():
    assert resolution_weights([96, 48, 24, 12]) == [1, 2, 4, 8]
