//! Kinds of errors as each protocol's codes: the one table. Errors enter; gRPC statuses and SQLSTATEs leave.

use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

/// gRPC code and SQLSTATE of a kind. <https://www.postgresql.org/docs/16/errcodes-appendix.html>
pub fn codes(kind: ErrorKind) -> (Code, &'static str) {
    match kind {
        ErrorKind::InvalidSql => (Code::InvalidArgument, "42601"),
        ErrorKind::UndefinedTable => (Code::InvalidArgument, "42P01"),
        ErrorKind::UndefinedColumn => (Code::InvalidArgument, "42703"),
        ErrorKind::UndefinedFunction => (Code::InvalidArgument, "42883"),
        ErrorKind::InvalidArgument => (Code::InvalidArgument, "22023"),
        ErrorKind::Data => (Code::InvalidArgument, "22000"),
        ErrorKind::ReadOnly => (Code::PermissionDenied, "25006"),
        ErrorKind::Unsupported => (Code::Unimplemented, "0A000"),
        ErrorKind::Unauthenticated => (Code::Unauthenticated, "28P01"),
        ErrorKind::Denied => (Code::PermissionDenied, "42501"),
        ErrorKind::NotFound => (Code::NotFound, "02000"),
        ErrorKind::Timeout => (Code::DeadlineExceeded, "57014"),
        ErrorKind::Canceled => (Code::Cancelled, "57014"),
        ErrorKind::Busy => (Code::ResourceExhausted, "53300"),
        ErrorKind::OutOfMemory => (Code::ResourceExhausted, "53200"),
        ErrorKind::Unavailable => (Code::Unavailable, "57P03"),
        ErrorKind::Settings => (Code::FailedPrecondition, "F0000"),
        ErrorKind::Internal => (Code::Internal, "XX000"),
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        log(&error);
        Self::new(codes(error.kind).0, error.text())
    }
}

impl From<Error> for PgWireError {
    fn from(error: Error) -> Self {
        log(&error);
        let mut info = ErrorInfo::new("ERROR".to_string(), codes(error.kind).1.to_string(), error.message);
        info.hint = error.hint;
        Self::UserError(Box::new(info))
    }
}

/// Errors of ours are for us to mend; errors of callers are theirs and stay out of the log.
fn log(error: &Error) {
    if error.kind == ErrorKind::Internal {
        tracing::error!(kind = ?error.kind, "a request failed by a mistake of ours");
    }
}
