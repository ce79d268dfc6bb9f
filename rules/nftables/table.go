package nftables

// TableName is the name of nftproxy's table, one in each family.
const TableName = "nftproxy"
