// Required cases that do not pass, and why. `npm run bench -- conformance` compares this list with what it finds.

const CUT_OFF = "the origin cuts the connection and the case wants a request number of its own in the answer; a gateway that may not serve the stale answer has only its own 502 (RFC 9111, 4.2.4: it must not be served)";
const SET_COOKIE = "an answer with Set-Cookie is never stored (CONTRACT): it is somebody's own, whatever its Cache-Control says";
const M_SEARCH = "workerd takes no M-SEARCH: it answers 501 itself";

export const REMAINING = {
  "age-parse-prefix": "an Age with several values counts as stale, so that a cache on the way that is at fault makes no old answer new; RFC 9111, 5.1 would take the first (the suite itself wants `0, 0` to be stale)",
  "stale-close-must-revalidate": CUT_OFF,
  "stale-close-proxy-revalidate": CUT_OFF,
  "stale-close-no-cache": CUT_OFF,
  "stale-close-s-maxage=2": CUT_OFF,
  "headers-store-Set-Cookie": SET_COOKIE,
  "304-etag-update-response-Set-Cookie": SET_COOKIE,
  "headers-store-Transfer-Encoding": "workerd refuses an answer with a transfer coding that it does not know",
  "304-etag-update-response-ETag": "a 304 with another strong tag is about another answer and must not be used (RFC 9111, 4.3.4); the page is asked for anew, and the suite's origin then answers 999",
  "invalidate-M-SEARCH": M_SEARCH,
  "invalidate-M-SEARCH-cl": M_SEARCH,
};
