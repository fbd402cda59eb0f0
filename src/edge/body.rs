//! Reading a request body: bounded in bytes, in time between two parts, and in time as a whole.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, HeaderMap};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout_at;

use crate::clock;
use crate::config::checked::Limits;
use crate::fault::{Fault, Kind};

/// What is set aside for a body before any of it came: a length that is only claimed costs nothing.
const CLAIMED_BYTES_MAX: usize = 64 * 1024;

/// The whole body. A claimed length over the limit is refused before anything is read, and a coded body always.
pub async fn read<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    headers: &HeaderMap,
    limits: &Limits,
) -> Result<Bytes, Fault> {
    let coding = headers.get(CONTENT_ENCODING);
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Fault::new(Kind::BadRequest, "content-encoding is not supported: send the body as it is")
            .param("content-encoding"));
    }
    let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if claimed > limits.body_bytes {
        return Err(too_large(limits));
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let end = clock::now() + limits.body_total;
    let Some(first) = part(&mut body, limits, end).await? else { return Ok(Bytes::new()) };
    if first.len() > limits.body_bytes {
        return Err(too_large(limits));
    }
    if body.is_end_stream() {
        return Ok(first); // The usual case: nothing is copied.
    }
    let Some(second) = part(&mut body, limits, end).await? else { return Ok(first) };
    let mut whole = BytesMut::with_capacity(claimed.min(CLAIMED_BYTES_MAX).max(first.len() + second.len()));
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(bytes) = next {
        if whole.len() + bytes.len() > limits.body_bytes {
            return Err(too_large(limits));
        }
        whole.extend_from_slice(&bytes);
        next = part(&mut body, limits, end).await?;
    }
    Ok(whole.freeze())
}

/// The next data of the body; trailers are passed over.
async fn part<B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
    limits: &Limits,
    end: clock::Instant,
) -> Result<Option<Bytes>, Fault> {
    let until = end.min(clock::now() + limits.body_gap);
    let next = async {
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) if data.is_empty() => {}
                Ok(Ok(data)) => return Ok(Some(data)),
                Ok(Err(_trailers)) => {}
                Err(_) => {
                    return Err(Fault::new(Kind::BadRequest, "the request body is not well formed or ended early"));
                }
            }
        }
        Ok(None)
    };
    match timeout_at(until, next).await {
        Ok(part) => part,
        Err(_) => Err(Fault::new(Kind::SlowBody, "the request body did not arrive in time")),
    }
}

fn too_large(limits: &Limits) -> Fault {
    Fault::new(Kind::TooLarge, format!("the request body is over the limit of {} bytes", limits.body_bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{StreamExt, stream};
    use http::HeaderValue;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;
    use crate::edge::tests::limits;

    const LIMIT: usize = 1000;

    fn small() -> Limits {
        Limits { body_bytes: LIMIT, ..limits() }
    }

    async fn check<B: Body<Data = Bytes> + Unpin>(body: B) -> Result<usize, Kind> {
        read(body, &HeaderMap::new(), &small()).await.map(|bytes| bytes.len()).map_err(|fault| fault.kind)
    }

    /// A body of unknown length: `parts` of `size` bytes, `gap` apart.
    fn parts(parts: usize, size: usize, gap: Duration) -> impl Body<Data = Bytes, Error = Fault> + Unpin {
        let frames = stream::iter(0..parts).then(move |_| async move {
            tokio::time::sleep(gap).await;
            Ok(Frame::data(Bytes::from(vec![b'x'; size])))
        });
        StreamBody::new(Box::pin(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_exact() {
        for (size, expected) in [(LIMIT - 1, Ok(LIMIT - 1)), (LIMIT, Ok(LIMIT)), (LIMIT + 1, Err(Kind::TooLarge))] {
            assert_eq!(check(Full::new(Bytes::from(vec![b'x'; size]))).await, expected);
            assert_eq!(check(parts(size, 1, Duration::ZERO)).await, expected);
            assert_eq!(check(parts(1, size, Duration::ZERO)).await, expected);
        }
        assert_eq!(check(Full::new(Bytes::new())).await, Ok(0));
        assert_eq!(check(parts(0, 0, Duration::ZERO)).await, Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_and_a_drip_both_end() {
        let (gap, total) = (small().body_gap, small().body_total);
        assert_eq!(check(parts(3, 1, gap - Duration::from_millis(1))).await, Ok(3));
        assert_eq!(check(parts(3, 1, gap + Duration::from_millis(1))).await, Err(Kind::SlowBody));
        let begun = clock::now();
        assert_eq!(check(parts(LIMIT, 1, gap / 2)).await, Err(Kind::SlowBody));
        assert_eq!(begun.elapsed(), total);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_is_not_a_short_body() {
        let frames = stream::iter([Ok(Frame::data(Bytes::from("x"))), Err(Fault::new(Kind::Internal, "cut"))]);
        assert_eq!(check(StreamBody::new(frames)).await, Err(Kind::BadRequest));
    }

    #[tokio::test]
    async fn a_coded_body_is_refused_by_the_header_s_name() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let fault = read(Full::new(Bytes::from("x")), &headers, &small()).await.unwrap_err();
        assert_eq!((fault.kind, fault.param.as_deref()), (Kind::BadRequest, Some("content-encoding")));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
        assert!(read(Full::new(Bytes::from("x")), &headers, &small()).await.is_ok());
    }
}
