"""Theme and style of the page: the palette of `chart_style` as CSS variables, plus `static/*.css`."""

from pathlib import Path

import gradio as gr

from sentiment_core.figures.style import FONTS, PALETTE, theme_css

MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")

GROUND = {
    "page": ("#FFFFFF", "#10141B"),
    "card": ("#F6F7F9", "#181E27"),
    "raised": ("#FFFFFF", "#1F2632"),
    "strong": ("#1B2430", "#E6EAF0"),
    "on-strong": ("#FFFFFF", "#10141B"),
    "field-edge": ("#B8C0CC", "#4A5566"),
    "checked": ("#1B2430", PALETTE["base"].light),
}
"""Backgrounds in light and dark: one step of grey for cards, the button that matters, fields."""

COLOURS = PALETTE | GROUND

WEARERS = {
    "page": """background_fill_primary block_background_fill block_label_background_fill
        panel_background_fill table_even_background_fill table_odd_background_fill""",
    "card": """background_fill_secondary color_accent_soft button_secondary_background_fill_hover
        checkbox_label_background_fill_selected""",
    "raised": "input_background_fill button_secondary_background_fill checkbox_background_color",
    "strong": """border_color_accent input_border_color_focus button_primary_background_fill
        button_primary_border_color checkbox_border_color_selected checkbox_label_border_color_selected""",
    "on-strong": "button_primary_text_color",
    "field-edge": "input_border_color checkbox_border_color",
    "checked": "checkbox_background_color_selected",
    "ink": "body_text_color block_title_text_color button_secondary_text_color",
    "muted": """body_text_color_subdued block_label_text_color input_placeholder_color
        button_primary_background_fill_hover slider_color loader_color""",
    "line": "border_color_primary button_secondary_border_color table_border_color",
    "positive": "link_text_color",
}
"""Gradio's settings by the colour that they get; the others follow from these."""

MEASURES = {
    "none": "block_shadow button_primary_shadow input_shadow",
    "0px": "block_border_width block_label_border_width block_padding",
    "1px": "input_border_width",
    "4px": "checkbox_border_radius",
    "8px": "block_radius button_large_radius button_medium_radius button_small_radius input_radius",
    "16px": "layout_gap",
}


def css() -> str:
    """`--q-base`, `--q-fine`, … in the light and in the dark form, and what wears them."""
    light, dark = ("".join(f"--q-{name}:{tint[i]};" for name, tint in COLOURS.items()) for i in (0, 1))
    return f":root{{{light}}}\n.dark{{{dark}}}\n{static('*.css')}{theme_css()}"


def static(*patterns: str) -> str:
    """The files under `static/` that match, pattern by pattern, each in the order of their names."""
    folder = Path(__file__).parent / "static"
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def theme() -> gr.themes.Base:
    """Neutral, hairline borders, 8 px corners, system fonts (nothing is fetched for them)."""
    settings = {"color_accent": PALETTE["muted"].light}
    settings |= {name: value for value, names in MEASURES.items() for name in names.split()}
    for colour, names in WEARERS.items():
        for name in names.split():
            settings[name], settings[f"{name}_dark"] = COLOURS[colour]
    hues = dict.fromkeys(("primary_hue", "secondary_hue", "neutral_hue"), "slate")
    return gr.themes.Base(**hues, font=FONTS, font_mono=MONO_FONTS).set(**settings)
