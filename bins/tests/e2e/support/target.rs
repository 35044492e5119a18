//! What streams lead to.

use std::{future::Future, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Serves every connection in its own task, for as long as the test runs.
pub(crate) async fn serve<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    addr
}

/// Answers every HTTP request with a page, and closes.
pub(crate) async fn http(page: &'static str) -> SocketAddr {
    serve(move |mut socket| async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await?);
        }
        let length = page.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}");
        socket.write_all(answer.as_bytes()).await?;
        socket.shutdown().await
    })
    .await
}

/// Sends back what it gets, and ends when its peer does.
pub(crate) async fn echo() -> SocketAddr {
    serve(|mut socket| async move {
        let (mut read, mut write) = socket.split();
        tokio::io::copy(&mut read, &mut write).await?;
        write.shutdown().await
    })
    .await
}

/// Speaks first, says nothing more, and waits for the client's end.
pub(crate) async fn greeting(text: &'static str) -> SocketAddr {
    serve(move |mut socket| async move {
        socket.write_all(text.as_bytes()).await?;
        socket.read_to_end(&mut Vec::new()).await.map(drop)
    })
    .await
}

/// Counts what it gets until the client's end, and says how much that was.
pub(crate) async fn count() -> SocketAddr {
    serve(|mut socket| async move {
        let bytes = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?;
        socket.write_all(bytes.to_string().as_bytes()).await?;
        socket.shutdown().await
    })
    .await
}

/// Says a word, ends its half, and sends back the first byte of what comes afterwards in a way that a test can see: by
/// `heard`.
pub(crate) async fn half_closing(text: &'static str, heard: tokio::sync::mpsc::Sender<String>) -> SocketAddr {
    serve(move |mut socket| {
        let heard = heard.clone();
        async move {
            socket.write_all(text.as_bytes()).await?;
            socket.shutdown().await?;
            let mut rest = String::new();
            socket.read_to_string(&mut rest).await?;
            heard.send(rest).await.map_err(std::io::Error::other)
        }
    })
    .await
}

/// Resets the connection when the first byte arrives.
pub(crate) async fn resetting() -> SocketAddr {
    serve(|mut socket| async move {
        socket.read_u8().await?;
        socket.set_zero_linger()
    })
    .await
}

/// Sends without end.
pub(crate) async fn endless() -> SocketAddr {
    serve(|mut socket| async move {
        loop {
            socket.write_all(&[7; 4096]).await?;
        }
    })
    .await
}

/// A target whose SYN queue is full, so that dialling it neither succeeds nor fails.
pub(crate) struct Unanswering {
    pub(crate) addr: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Unanswering {
    pub(crate) async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        // The system decides how many more than the backlog it takes.
        while let Ok(connected) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(addr)).await {
            queued.push(connected.unwrap());
        }
        Self {
            addr,
            _listener: listener,
            _queued: queued,
        }
    }
}
