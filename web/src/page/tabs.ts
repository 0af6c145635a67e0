// A device has one line to a switchboard, so one tab acts as the device. The
// others say so, and can take over.

const lock = "peerlink-device";

/** Tabs tells this tab when it is the device's, and when no more. */
export interface Tabs {
  /** begin is called when this tab may act as the device. */
  begin(): void;
  /** taken is called when another tab has taken over. */
  taken(): void;
  /** elsewhere is called where another tab is the device. */
  elsewhere(): void;
}

/** claim asks to be the device's tab; force takes it from another. */
export function claim(t: Tabs, force = false): void {
  const how: LockOptions = force ? { steal: true } : { ifAvailable: true };
  void navigator.locks
    .request(lock, how, (l) => {
      if (!l) {
        t.elsewhere();
        return undefined;
      }
      t.begin();
      return new Promise<never>(() => {}); // until the tab is closed, or another steals it
    })
    .catch(() => t.taken());
}
