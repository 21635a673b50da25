"""`tfscale init`: a project of the user's own that trains at once.

Owns what a new project holds (`templates/`, each file with the ending .tmpl), which names it may have, and how it gets
onto the disk. Refuses to know how anything trains: the project does what the documentation says, and no more.
"""
