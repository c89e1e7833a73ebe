"""Theme and style of the page: the figures' palette as CSS variables, plus `static/*.css`."""

from pathlib import Path

import gradio as gr

from sentiment_core.figures.style import FONTS, PALETTE, theme_css

MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")


def css() -> str:
    """`--q-base`, `--q-fine`, … in the light and in the dark form, and what wears them."""
    light, dark = ("".join(f"--q-{name}:{tint[i]};" for name, tint in PALETTE.items()) for i in (0, 1))
    return f":root{{{light}}}\n.dark{{{dark}}}\n{static('*.css')}{theme_css()}"


def static(*patterns: str) -> str:
    """The files under `static/` that match, pattern by pattern, each in the order of their names."""
    folder = Path(__file__).parent / "static"
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def theme() -> gr.themes.Base:
    """Gradio's plainest, in system fonts (none is fetched); `theme.css` says what wears which colour."""
    hues = dict.fromkeys(("primary_hue", "secondary_hue", "neutral_hue"), "slate")
    return gr.themes.Base(**hues, font=FONTS, font_mono=MONO_FONTS)
