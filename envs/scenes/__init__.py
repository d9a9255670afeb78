"""Pictures made from a few numbers: what a task holds is how to draw its picture, and the picture is drawn when needed.

photos   real photographs that packages ship, or those of a folder
pens     one font, colours, words
mazes    grids with walls         charts   bars and lines        transit   stations and lines
shapes   objects on a ground      signs    a small sign on a large picture
"""
