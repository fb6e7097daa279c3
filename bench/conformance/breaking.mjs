/** The origin of these cases sends more bytes than it announces, and so breaks the next request on its connection: each runs alone. */
export const BREAKING = ["headers-store-Content-Length", "304-etag-update-response-Content-Length"];
