//! The numbers of the protocol: what a request asks for, and how an answer ends.

/// Request codes, with RocketMQ's names.
pub(crate) mod ask {
    pub(crate) const SEND_MESSAGE: i32 = 10;
    pub(crate) const PULL_MESSAGE: i32 = 11;
    pub(crate) const QUERY_CONSUMER_OFFSET: i32 = 14;
    pub(crate) const UPDATE_CONSUMER_OFFSET: i32 = 15;
    pub(crate) const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    pub(crate) const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    pub(crate) const GET_MAX_OFFSET: i32 = 30;
    pub(crate) const GET_MIN_OFFSET: i32 = 31;
    pub(crate) const GET_EARLIEST_MSG_STORETIME: i32 = 32;
    pub(crate) const HEART_BEAT: i32 = 34;
    pub(crate) const UNREGISTER_CLIENT: i32 = 35;
    pub(crate) const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
    /// From the broker to its consumers: members came or went.
    pub(crate) const NOTIFY_CONSUMER_IDS_CHANGED: i32 = 40;
    pub(crate) const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
    pub(crate) const SEND_MESSAGE_V2: i32 = 310;
    pub(crate) const SEND_BATCH_MESSAGE: i32 = 320;
    pub(crate) const LITE_PULL_MESSAGE: i32 = 361;
}

/// Response codes, with RocketMQ's names.
pub(crate) mod say {
    pub(crate) const SUCCESS: i32 = 0;
    pub(crate) const SYSTEM_ERROR: i32 = 1;
    pub(crate) const SYSTEM_BUSY: i32 = 2;
    pub(crate) const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
    pub(crate) const MESSAGE_ILLEGAL: i32 = 13;
    pub(crate) const SERVICE_NOT_AVAILABLE: i32 = 14;
    pub(crate) const NO_PERMISSION: i32 = 16;
    pub(crate) const TOPIC_NOT_EXIST: i32 = 17;
    pub(crate) const PULL_NOT_FOUND: i32 = 19;
    pub(crate) const PULL_RETRY_IMMEDIATELY: i32 = 20;
    pub(crate) const PULL_OFFSET_MOVED: i32 = 21;
    pub(crate) const QUERY_NOT_FOUND: i32 = 22;
    pub(crate) const SUBSCRIPTION_PARSE_FAILED: i32 = 23;
    pub(crate) const SUBSCRIPTION_NOT_EXIST: i32 = 24;
    pub(crate) const SUBSCRIPTION_NOT_LATEST: i32 = 25;
    pub(crate) const INVALID_PARAMETER: i32 = 29;
}
