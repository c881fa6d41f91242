// Small helps; every page works without them. Load with `defer`.
(function () {
  "use strict";

  // Forms carry the browser's time zone, so that mails and pages can show local
  // times. A zone in a visible field is kept.
  function fillZones() {
    var zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    document.querySelectorAll("input[name=timezone]").forEach(function (input) {
      if (input.type === "hidden" || !input.value) input.value = zone || "";
    });
  }
  fillZones();
  document.addEventListener("htmx:load", fillZones); // also after every swap

  // The only run of exactly `size` digits in a text, else the only one split by
  // single spaces or dashes ("123 456"). "" when in doubt.
  function findCode(text, size) {
    var plain = (text || "").normalize("NFKC") // full-width digits, odd spaces
      .replace(/[\u0660-\u0669\u06f0-\u06f9]/g, function (digit) {
        return digit.charCodeAt(0) & 15; // Arabic and Persian digits
      });
    function runs(gap) {
      var found = plain.match(new RegExp("(?<!\\w)\\d(?:" + gap + "\\d)*(?!\\w)", "gu")) || [];
      found = found.map(function (run) { return run.replace(/\D/g, ""); });
      return Array.from(new Set(found)).filter(function (run) { return run.length === size; });
    }
    var codes = runs("");
    if (!codes.length) codes = runs("[\\s\\p{Pd}]?");
    return codes.length === 1 ? codes[0] : "";
  }

  // A pasted or autofilled code is sent at once, typed digits never: people check
  // them by eye. Once per field, and not after an error (WCAG 3.2.2).
  var sent = new WeakSet();
  document.addEventListener("input", function (event) {
    var field = event.target;
    if (!field.matches("input[data-paste-submit]")) return;
    if (event.inputType && !/^insert(FromPaste|ReplacementText)$/.test(event.inputType)) return;
    var size = Number(field.dataset.digits);
    var code = findCode(event.data, size) || findCode(field.value, size);
    if (!code) return;
    field.value = code;
    if (sent.has(field) || field.ariaInvalid === "true") return;
    sent.add(field);
    field.form.requestSubmit();
  });

  // What a mailed link proves itself with is behind the #: into the form, and out of the
  // address bar and the history. Nothing is sent before somebody presses the button.
  function takeFragment(event) {
    var proof = location.hash.slice(1);
    var there = /^\/(link|undo_address)$/.test(location.pathname);
    if (!there || !proof || document.getElementById(proof)) return;
    var field = document.querySelector("input[data-fragment]");
    if (!field) {
      if (event) location.reload(); // a second link, opened where the first one was shown
      return;
    }
    field.value = proof;
    field.parentElement.hidden = true;
    history.replaceState(history.state, "", location.pathname);
  }
  takeFragment();
  window.addEventListener("hashchange", takeFragment);

  // A button that copies shows itself where the browser lets it.
  function showCopies() {
    document.querySelectorAll("button[data-copy]").forEach(function (button) {
      button.hidden = !navigator.clipboard;
    });
  }
  showCopies();
  document.addEventListener("htmx:load", showCopies);
  document.addEventListener("click", function (event) {
    var button = event.target.closest("button[data-copy]");
    if (!button) return;
    navigator.clipboard.writeText(button.dataset.copy).then(function () {
      document.querySelectorAll("button[data-copy][data-label]").forEach(function (other) {
        other.textContent = other.dataset.label; // only one of them is on the clipboard
      });
      button.dataset.label = button.textContent;
      button.textContent = button.dataset.copied;
    });
  });

  // A tab that waits for a code hears when another one has signed in, and asks the
  // server where to go. Only tabs of this browser hear it.
  if (window.BroadcastChannel) {
    var channel = new BroadcastChannel("signed-in");
    channel.onmessage = function () { htmx.trigger(document.body, "signed-in"); };
    if (document.body.hasAttribute("data-signed-in")) channel.postMessage("");
  }

  // After signing out, "back" may show a signed-in page from memory: ask anew.
  window.addEventListener("pageshow", function (event) {
    if (event.persisted && document.body.hasAttribute("data-signed-in")) location.reload();
  });

  // A list that follows a search says what it found also to who does not see it (WCAG 4.1.3).
  document.addEventListener("htmx:afterSwap", function (event) {
    var asked = event.detail.requestConfig.elt;
    var list = document.getElementById(event.detail.target.id);
    var found = list && list.querySelector(".found, .empty p, caption");
    if (found && asked.matches("[role=search]")) {
      document.getElementById("heard").textContent = found.textContent;
    }
  });

  // No answer, or a server fault: say so in the live region, and take that note
  // (no other) away when the next request starts.
  function note(on) {
    var status = document.getElementById("status");
    var words = status && status.dataset.offline;
    if (words && (on || status.textContent === words)) status.textContent = on ? words : "";
  }
  ["htmx:sendError", "htmx:timeout", "htmx:responseError"].forEach(function (name) {
    document.addEventListener(name, function (event) {
      var code = event.detail.xhr ? event.detail.xhr.status : 0;
      if (!code || code >= 500) note(true);
    });
  });
  document.addEventListener("htmx:beforeRequest", function () { note(false); });
})();
