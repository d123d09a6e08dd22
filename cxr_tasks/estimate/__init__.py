"""How long a run will take, and what it will need, before it runs.

``work`` says what a run has to do, in units such as steps of the GAN. ``probe`` measures what a unit costs on this
machine. ``rates`` keeps what was measured. ``forecast`` puts them together.
"""
