//! What a channel takes out of answers before the gRPC library reads them: a `grpc-status-details-bin` that is not base64.
//! tonic 0.14 decodes that header with an `expect`, so a broken or hostile peer could end the process that called it.
//!
//! Never: touches a header that decodes, or any other. Invariant: every channel that [`super::channel::Dialer`] makes is
//! guarded, in the head of an answer and in its trailers; the call then fails with the status that is left.

use bytes::Bytes;
use http_body::Frame;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Response};
use tonic::{Status, transport};
use tower::util::MapResponse;

/// A channel whose answers cannot make the library panic. Cheap to clone.
pub type Channel = MapResponse<transport::Channel, fn(Response<Body>) -> Response<Body>>;

/// The guarded channel.
#[must_use]
pub fn guarded(channel: transport::Channel) -> Channel {
    MapResponse::new(channel, clean)
}

fn clean(answer: Response<Body>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    strip(&mut head.headers);
    Response::from_parts(head, Body::new(Guarded(body)))
}

fn strip(headers: &mut HeaderMap) {
    if headers.get(Status::GRPC_STATUS_DETAILS).is_some_and(|value| !is_base64(value.as_bytes())) {
        headers.remove(Status::GRPC_STATUS_DETAILS);
        tracing::warn!("a peer's answer carried error details that are not base64");
    }
}

/// RFC 4648, padded or not, no bits left over.
fn is_base64(value: &[u8]) -> bool {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let padding = value.iter().rev().take_while(|c| **c == b'=').count();
    let digits = &value[..value.len() - padding];
    if padding > 0 && (padding > 2 || !value.len().is_multiple_of(4)) {
        return false;
    }
    let unused = match digits.len() % 4 {
        1 => return false,
        2 => 0b1111,
        3 => 0b11,
        _ => 0,
    };
    let last = digits.last().and_then(|c| digit(*c)).unwrap_or(0);
    digits.iter().all(|c| digit(*c).is_some()) && last & unused == 0
}

/// Passes frames on, with trailers cleaned.
#[derive(Debug)]
struct Guarded(Body);

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut polled = Pin::new(&mut self.0).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            strip(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::record::Endpoint;
    use crate::rpc::channel::{Dialer, Traffic, admin_client};
    use crate::rpc::pb::admin::v1::MetadataHashRequest;
    use proptest::prelude::*;
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use tonic::codegen::http::{HeaderValue, Request};
    use tonic::server::NamedService;

    proptest! {
        #[test]
        fn what_passes_is_what_the_library_decodes(value in "[A-Za-z0-9+/=\\-_ ]{0,12}") {
            let mut headers = HeaderMap::new();
            headers.insert(Status::GRPC_STATUS, HeaderValue::from_static("14"));
            headers.insert(Status::GRPC_STATUS_DETAILS, HeaderValue::from_str(&value).expect("plain letters"));
            strip(&mut headers);
            Status::from_header_map(&headers).expect("a status, and no panic");
        }
    }

    #[test]
    fn details_that_decode_are_left_alone() {
        for good in ["", "AA", "AA==", "AAA", "AAA=", "AAAA", "Zm9v", "+/+/"] {
            assert!(is_base64(good.as_bytes()), "{good}");
        }
        for bad in ["A", "AB", "AAB", "A===", "A=AA", "=", "AAA-", "AA=", "AAAA====", "%%%%"] {
            assert!(!is_base64(bad.as_bytes()), "{bad}");
        }
    }

    /// Answers everything with a status whose details are no base64, in the head or in the trailers.
    #[derive(Clone)]
    struct Hostile {
        in_trailers: bool,
    }

    impl NamedService for Hostile {
        const NAME: &'static str = "seawall.admin.v1.Admin";
    }

    struct Trailers(Option<HeaderMap>);

    impl http_body::Body for Trailers {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
        }
    }

    impl tower::Service<Request<Body>> for Hostile {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let mut bad = HeaderMap::new();
            bad.insert(Status::GRPC_STATUS, HeaderValue::from_static("5"));
            bad.insert(Status::GRPC_STATUS_DETAILS, HeaderValue::from_static("%not base64%"));
            let mut answer = Response::new(Body::empty());
            if self.in_trailers {
                answer = Response::new(Body::new(Trailers(Some(bad))));
            } else {
                answer.headers_mut().extend(bad);
            }
            answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            std::future::ready(Ok(answer))
        }
    }

    #[tokio::test]
    async fn a_peer_with_broken_details_fails_that_call_and_nothing_else() {
        for in_trailers in [false, true] {
            let listener = crate::rpc::server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let serving =
                tonic::transport::Server::builder().add_service(Hostile { in_trailers }).serve_with_incoming(incoming);
            let serving = tokio::spawn(serving);
            let address = Endpoint { host: "127.0.0.1".into(), port };
            let channel = Dialer::plain().connect(&address, Traffic::Control).await.expect("it listens");
            for _ in 0..2 {
                let status = admin_client(channel.clone()).metadata_hash(MetadataHashRequest {}).await;
                assert_eq!(status.expect_err("it was refused").code(), tonic::Code::NotFound);
            }
            serving.abort();
        }
    }
}
