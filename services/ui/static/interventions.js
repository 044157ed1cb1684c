// What an operator can do about a night that was begun: a button for each thing that its state allows. What the service refuses all the
// same, it says in the dialog.

import { cancelSleep, pauseSleep, resumeSleep, retrySleep } from "./dialogs.js";
import { button } from "./head.js";

const WITH_A_NIGHT = new Set(["queued", "preparing", "running", "evaluating"]);
const RETRYABLE = new Set(["failed", "cancelled"]);
const ENDED = new Set(["succeeded", ...RETRYABLE]);

// `does` is told the dialog that was opened, and what to say where it was not closed; `parent` is false where the night's parent does
// not serve any more. Pause and Resume stand in one place, so that who has pressed one with the keyboard is at the other.
export function nightButtons(night, name, does, parent = true) {
  const { id, status, result_version: made, error } = night;
  const stands = { "data-focus": "pause" };
  const pause = () => does(pauseSleep(id, name, status), "The night is being paused.");
  const cancel = () => does(cancelSleep(id, name), "The night is being cancelled.");
  return [
    WITH_A_NIGHT.has(status) && !made && !error ? button("Pause", stands, pause) : null,
    status === "pausing" ? button("Pause now", stands, pause) : null,
    status === "paused" ? button("Resume", stands, () => does(resumeSleep(id, name), "The night goes on.")) : null,
    ENDED.has(status)
      ? null
      : button("Cancel", { "data-focus": "cancel", disabled: status === "cancelling" || Boolean(made) }, cancel),
    RETRYABLE.has(status) && parent
      ? button("Try again", { "data-focus": "retry" }, () => does(retrySleep(id, name), "The night is tried again."))
      : null,
  ];
}
