// Keeps the keys that are typed in a form from the notebook around it.
//
// Invariants: nothing is shown and nothing is told to the kernel; text fields are left as they are, because the
// notebook leaves them alone by itself and Ctrl+S goes on saving there; it ends with its view.
//
// Joined behind page.js (see frontend.py).

export default {
  render({ el }) {
    const keep = ({ target }) => {
      // The form is looked for late: it is not around this yet, and rows come and go.
      if (!target.matches(":read-write") && el.closest(".kling-form")?.contains(target)) keepKeys(target);
    };
    document.addEventListener("focusin", keep);
    return () => document.removeEventListener("focusin", keep);
  },
};
