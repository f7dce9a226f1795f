"""A renderer of film shots: numbers drawn from a seed become pictures, a caption and the true scores.

    scenes.py   what is in a shot: place, subject, time, weather, camera, light, film stock
    camera.py   where the camera looks at each moment
    noise.py    textures
    places.py   backgrounds       figures.py   people, faces, crowds, cars, fires, titles
    stock.py    light, fog, rain, lens, grain and grading
    render.py   all of it: a scene to 8-bit frames
    truth.py    the scores and the caption that belong to a scene

Everything is a batch of shots and runs on the CPU and on a GPU alike.
"""
