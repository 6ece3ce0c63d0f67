// The controls of runs on their way, on a page that was loaded anew: what the card above cannot say any more.
//
// Invariants: the page that the card was drawn on sees nothing of this; a stale card is only tinted in the page, and
// the notebook keeps it; a card that is put in comes from our own views, its clip from the kernel; nothing is asked
// of the network.
//
// Joined behind page.js and clips.js (see widgets.py).

const PAGE = (window.klingPage ??= `${Date.now()}-${Math.random()}`);

function tint(strip) {
  const stale = strip.closest(".jp-OutputArea-child")?.previousElementSibling;
  const shown = stale?.querySelector(".jp-OutputArea-output");
  if (!shown || stale.querySelector(".kling-stale")) return;
  for (const part of shown.children) part.style.opacity = "0.5";
  const words = "As it was when this page was saved. How it stands now is below.";
  shown.prepend(make("div", { class: "kling-stale", text: words }));
}

export default {
  render({ model, el }) {
    const clips = new Clips(model);
    const strip = () => el.closest(".kling-strip");
    let asked = false;

    const put = ({ id, html }) => {
      const card = make("template");
      card.innerHTML = html;
      // The address is the notebook's, and this page may stand elsewhere.
      for (const video of card.content.querySelectorAll("video")) {
        video.removeAttribute("src");
        clips.get(id).then(
          (url) => {
            video.src = url;
          },
          (error) => video.replaceWith(make("div", { text: error.message })),
        );
      }
      el.append(card.content);
    };
    const look = () => {
      const { first, done } = model.get("state");
      if (!first || first === PAGE || !strip()) return;
      strip().classList.add("kling-late");
      tint(strip());
      if (!done || asked) return;
      asked = true;
      model.send({ kind: "card" });
    };
    const hear = (message) => {
      if (message?.kind !== "cards") return;
      el.replaceChildren();
      message.cards.forEach(put);
    };
    model.on("change:state", look);
    model.on("msg:custom", hear);
    model.send({ kind: "page", page: PAGE });
    const soon = setTimeout(look, 50);
    return () => {
      clearTimeout(soon);
      model.off("change:state", look);
      model.off("msg:custom", hear);
      clips.close();
    };
  },
};
